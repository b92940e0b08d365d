"""Components read strictly from a directory."""
