"""What is heard and what is missed: measured on composed streams, over grids and from few examples.

``composed`` makes streams with known truth and ``det`` measures on them, ``few_shot`` and ``sweep``
train for what they measure. ``page`` is the page of the documentation that shows all of it.
"""
