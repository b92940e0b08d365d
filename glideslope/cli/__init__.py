"""The command line: each file one group of commands."""
