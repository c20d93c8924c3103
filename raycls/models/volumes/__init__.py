"""Networks that take volumes."""
