"""Commands that look at what a config will do before it is trained."""
