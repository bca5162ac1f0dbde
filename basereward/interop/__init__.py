"""Reward models from and for other tools: checkpoints with one linear head, and what people call them."""
