"""Render measured facts as cards and plots."""
