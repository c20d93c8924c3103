"""Orders of training samples beside that of `raycls.data.order`: pure functions of seed, epoch and labels."""
