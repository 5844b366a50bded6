"""Live audio by way of PortAudio: one device at a time, found again when it was unplugged."""
