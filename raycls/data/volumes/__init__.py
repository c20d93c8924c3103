"""Volumes: DICOM series and NIfTI files as arrays in one orientation, and the operations on them."""
