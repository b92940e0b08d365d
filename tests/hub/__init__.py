"""A hub of our own on this machine, what goes wrong on it in turn, and how a publication ends then."""
