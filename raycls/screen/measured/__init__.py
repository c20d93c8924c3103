"""The tables of `raycls bench`."""
