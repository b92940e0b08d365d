"""Labels: files of them, the store, and how they meet the index."""
