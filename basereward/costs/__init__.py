"""FLOPs, memory and traffic of an architecture on an accelerator, by formula."""
