"""A data set converted to few large files: `raycls pack`."""
