"""Promises of orders beside the plain one, checked from what was trained."""
