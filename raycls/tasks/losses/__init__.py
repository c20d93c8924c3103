"""What is minimised in classification: one file per loss, and the balance of classes."""
