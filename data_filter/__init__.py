"""Find and remove what must not be learned: sources, index, labels, filters, curated data."""
