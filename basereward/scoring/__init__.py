"""Rewards out: the reward model, ensembles of it, and the ways to score comparisons, files and shards."""
