"""Comparisons with the published model, and timings: run by hand, never part of the tests."""
