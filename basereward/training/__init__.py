"""Training: from a run file to a run directory with the best and the last model."""
