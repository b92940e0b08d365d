"""What a reader looks at: the report of a run, and what changed between two."""
