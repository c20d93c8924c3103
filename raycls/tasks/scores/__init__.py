"""Metrics of an evaluation that need what the network said of each row: plain numpy, no files, no ranks."""
