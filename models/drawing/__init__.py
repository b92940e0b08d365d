"""Drawing and editing pictures."""
