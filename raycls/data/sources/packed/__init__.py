"""Data sets that lie in few large files: what `raycls pack` writes, and how it is read."""
