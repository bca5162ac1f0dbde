"""Random seeds: every step seeds all generators anew, so that checkpoints need no random state."""

from __future__ import annotations

import hashlib
import random

import numpy
import torch


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
