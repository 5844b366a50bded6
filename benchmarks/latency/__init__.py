"""What spotting costs: Earmark's models, whole audio models and other spotters, side by side.

``timing`` takes turns and times, ``watch`` tells whether the machine was disturbed. ``edge``,
``network``, ``beside`` for ``peers``, ``full_models`` and ``students`` make what is timed,
``cold``, ``delay``, ``streams`` and ``capacity`` measure what timing cannot, ``bench`` runs it all.
``results`` is the record, which ``cells``, ``plots``, ``html_page``, ``page`` and ``compare`` read.
``gate`` measures what the energy gate saves.
"""
