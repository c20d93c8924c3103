"""One sample of a split: made, refused, or left out of its batch."""
