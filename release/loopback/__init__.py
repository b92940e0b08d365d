"""A hub of our own on this machine, for rehearsals and tests."""
