"""Text from outside: files, tables, vocabularies, secrets in it, and words for numbers."""
