"""Backbones: what turns comparisons into hidden states, one prompt and its images once."""
