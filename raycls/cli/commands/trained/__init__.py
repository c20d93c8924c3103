"""Commands about a trained run that answer or are made from it."""
