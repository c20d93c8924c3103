"""Sources of volumes: DICOM series and NIfTI files."""
