"""GLIDE, the noised CLIP, sampling, training."""
