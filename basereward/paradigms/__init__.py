"""Paradigms: how a backbone and a head make rewards, and what they are trained on."""
