"""A starter recipe for a data set: each choice with its reason, as a comment beside it.

``starter`` looks at the corpus and puts the recipe together: ``scale`` says what to train and for
how long, ``choices`` gives each field with its reason, ``head`` the paragraphs above them, and
``text`` writes them.
"""

from .starter import find_folds, plan

__all__ = ["find_folds", "plan"]
