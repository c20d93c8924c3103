"""Plots that a run or a search leaves in its folder, as SVG files drawn by matplotlib."""
