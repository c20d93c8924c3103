"""Commands about a trained run that answer or are made from it."""

"""Commands about a run that was trained."""
