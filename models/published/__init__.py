"""The checkpoints that OpenAI published."""
