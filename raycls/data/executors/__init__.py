"""Who makes slices, beside the training or in its place."""
