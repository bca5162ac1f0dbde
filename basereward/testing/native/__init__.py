"""Tests of native ops: CUDA kernels run on the CPU, their use of registers and memory, and timing."""
