"""Publish a release, to a Hub or a directory, without half-states; take it back."""
