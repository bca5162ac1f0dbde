"""Export and import of checkpoints of other tools, with one linear head."""
