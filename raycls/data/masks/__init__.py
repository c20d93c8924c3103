"""Masks: read, and changed along with their images."""
