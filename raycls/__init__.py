"""raycls: train image classifiers on Ray, to the bit."""

__version__ = "0.1.0"
