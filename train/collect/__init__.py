"""Where recordings come from: the network, and a synthetic voice."""
