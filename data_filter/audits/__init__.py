"""Audits: how much the filter left, with a bound, from a sample that anyone can draw again."""
