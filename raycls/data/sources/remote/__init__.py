"""Data behind an address: `s3://`, `gs://`, `abfs://`."""
