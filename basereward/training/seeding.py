"""Repeatable training: seeds of every step anew, so that checkpoints need no random state, and
algorithms that give the same bits in every run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
from collections.abc import Iterator
from typing import Final

import numpy
import torch

CUBLAS_VARIABLE: Final = "CUBLAS_WORKSPACE_CONFIG"
CUBLAS_BUFFERS: Final = ":4096:8"  # a buffer for each stream: with shared ones cuBLAS's sums vary


def seed_everything(seed: int) -> None:
    """Seed the generators of torch, numpy and Python."""
    torch.manual_seed(seed)
    numpy.random.seed(seed % 2**32)
    random.seed(seed)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed the generators for one step of one rank, independently of all numbers drawn before.

    A resumed run thus draws the same numbers as the uninterrupted one.
    """
    mixed = hashlib.sha256(f"step {step} of process {rank} with seed {seed}".encode()).digest()
    seed_everything(int.from_bytes(mixed[:8]) >> 1)


@contextlib.contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Have torch take algorithms that give the same bits in every run, if that is wanted.

    A value of `CUBLAS_WORKSPACE_CONFIG` that is set already stays; torch refuses one that does not do.
    """
    if not wanted:
        yield
        return
    was_wanted = torch.are_deterministic_algorithms_enabled()
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    # Read when cuBLAS is first called; the variable stays, as the process keeps the buffers.
    os.environ.setdefault(CUBLAS_VARIABLE, CUBLAS_BUFFERS)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_wanted, warn_only=warns_only)
