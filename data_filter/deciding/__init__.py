"""From scores to the curated set: thresholds, bounds, decisions, the ledger."""
