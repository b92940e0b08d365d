"""glideslope."""
