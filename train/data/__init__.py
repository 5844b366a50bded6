"""Recordings that are there: found, checked, divided, decoded and drawn from."""
