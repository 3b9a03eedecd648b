"""Networks and their checkpoints; one network a file."""
