"""The index: a row and an embedding for each image of the source."""
