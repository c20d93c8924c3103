"""Patches of volumes: where they are cut for training, and the windows that cover a volume."""
