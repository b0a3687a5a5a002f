"""What a model is: its configuration, the front-end, and the networks. Only the configuration works without torch."""
