"""Estimates of a training before it starts: memory, FLOPs, time and money."""
