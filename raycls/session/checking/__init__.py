"""What is looked at before a data set is trained on: every image, its copies, its labels."""
