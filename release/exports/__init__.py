"""A release in other people's formats: diffusers, OpenSSF model signing."""
