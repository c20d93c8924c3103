"""What starts beside the workers of a run, and what they start from."""
