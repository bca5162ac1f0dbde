"""The machine: its cores and threads, its processor, and the precision of matrix products on it."""
