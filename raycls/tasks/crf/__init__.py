"""A dense CRF after a network that segments: neighbours of like intensity get like classes."""
