"""CLIP models: any of open_clip, and the built-in lite0."""
