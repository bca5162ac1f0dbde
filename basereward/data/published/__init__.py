"""Readers of the preference data sets as they are published."""
