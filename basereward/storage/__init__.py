"""Saved files: atomic replacement, digests, and the layout of a model directory."""
