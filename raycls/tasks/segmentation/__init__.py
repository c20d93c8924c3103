"""Segmentation: a class for each pixel of an image, or voxel of a volume."""
