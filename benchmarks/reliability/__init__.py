"""What holds under stress: ``faults`` made one by one, hours of ``soak``, and ``fuzz`` for readers.

``page`` is the page of the documentation that shows what they found.
"""
