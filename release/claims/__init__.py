"""The claims of a release, computed from its evidence."""
