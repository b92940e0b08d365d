"""The policies of the ready-made recipes."""
