"""Large networks whose outputs a student learns from."""
