"""FLOPs, memory and communication of an architecture on an accelerator, by formula."""
