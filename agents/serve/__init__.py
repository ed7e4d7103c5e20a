"""Reading over the network."""
