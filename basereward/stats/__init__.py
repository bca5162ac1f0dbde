"""Confidence intervals and paired tests over comparisons and over seeds."""
