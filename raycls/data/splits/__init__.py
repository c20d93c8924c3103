"""Which samples are in which split."""
