"""Training: one loop, its data and checkpoints, a file for each network."""
