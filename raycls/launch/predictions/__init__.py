"""Predictions of many images on the nodes of a Ray."""
