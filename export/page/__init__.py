"""The model in a browser: a static page, and a server for this machine."""
