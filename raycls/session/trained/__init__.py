"""What is done with a trained run: its network and its task, read from the run folder and from nothing else."""
