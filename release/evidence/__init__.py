"""What a release holds and what follows from it."""
