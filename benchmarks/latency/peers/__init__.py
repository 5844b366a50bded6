"""Other spotters, and detectors of speech as floors, each behind the same few lines."""
