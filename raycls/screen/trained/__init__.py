"""What the terminal shows of what is done with a trained run."""
