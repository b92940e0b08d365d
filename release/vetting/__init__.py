"""What a release must hold to before it is signed and published."""
