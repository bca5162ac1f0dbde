"""Tests of native ops: CUDA kernels on the CPU, what they take of a GPU, and timing."""
