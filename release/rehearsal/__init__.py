"""Publish to a hub of our own with failures on purpose, and write down how it ended."""
