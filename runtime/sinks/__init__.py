"""Where events go: standard output, files, commands, HTTP and MQTT."""
