"""Predictions of a trained run: which images, in which parts they are computed, and what the files hold."""
