"""The diffusion process, samplers and guidance."""
