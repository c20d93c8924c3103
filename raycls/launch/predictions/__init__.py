"""Many images on the nodes of a Ray: their predictions, and their shards."""
