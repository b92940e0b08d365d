"""What a run is to do."""
