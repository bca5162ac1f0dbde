"""Files that a kill leaves whole: atomic writes, digests, and the layout of a model directory."""
