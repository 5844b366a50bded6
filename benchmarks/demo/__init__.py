"""The pipeline on synthesized words, from text to a report."""
