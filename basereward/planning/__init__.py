"""What a training will take, said before it starts: memory, FLOPs, time and money."""
