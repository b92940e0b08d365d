"""What the gates look for."""
