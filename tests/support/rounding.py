"""Bounds on how far two computations of one number may lie apart by rounding alone."""

from __future__ import annotations

import math

import torch

LAMBDA = 8.0
"""A chain of n roundings is beyond its bound with a probability below 2 n exp(-LAMBDA² / 2) = 2.5e-14 n."""


def rounding_bound(
    num_roundings: int, dtype: torch.dtype = torch.float32, *, magnitude: float = 1.0
) -> float:
    """Return how far two orders of one sum, or two forms of one function, may lie apart.

    Each rounding is off by at most u = eps / 2 of its result, so that n in a row are off by at most n u of
    the sum of absolute terms. As they go in either direction, they are off by at most λ √n u, but for the
    probability at `LAMBDA` (Higham and Mary 2019, "A new approach to probabilistic rounding error analysis",
    theorem 2.4). The bound is twice the lesser, since both computations may be off.

    Args:
        num_roundings: The longest chain from the inputs to the number, such as the terms of a sum; of layers
            in a row, the sum of theirs.
        dtype: The type that is computed in.
        magnitude: The sum of the terms' absolute values.
    """
    return 2 * min(num_roundings, LAMBDA * math.sqrt(num_roundings)) * torch.finfo(dtype).eps / 2 * magnitude


# A tiny decoder's layer sums 32 terms for each of two norms, for the products of queries, outputs and gates,
# 8 for scores, 48 for the MLP's output, and the values of fewer than 100 tokens; a vision encoder's, fewer.
LAYER_ROUNDINGS = 5 * 32 + 8 + 48 + 100
REWARD_ROUNDINGS = 5 * LAYER_ROUNDINGS + 2 * 32
"""Of three layers of a decoder and two of a vision encoder, and the head."""

TINY_REWARD = rounding_bound(REWARD_ROUNDINGS)
"""How far two computations of a tiny model's reward or state may lie apart where terms add up to 1: 4e-5."""

TINY_GRADIENT = rounding_bound(3 * REWARD_ROUNDINGS)
"""The same of a gradient, whose chain is that of the pass forward and twice as long a one back: 7e-5."""


def within(bound: float) -> dict[str, float]:
    """Return the tolerances of `torch.testing.assert_close` for numbers x whose terms add up to 1 + |x|."""
    return {"atol": bound, "rtol": bound}


SMOOTH_EPS = 1e-2
"""An epsilon of AdamW about as large as a gradient, which keeps rounding errors as small as they are.

At the usual 1e-8 a gradient of nought, computed as some 1e-9 of either sign, moves its weight by the whole
rate.
"""

TINY_GRADIENT_CLIPPED = rounding_bound(3 * REWARD_ROUNDINGS, magnitude=0.1)
"""As `TINY_GRADIENT`, where all gradients together have a norm of at most 1: one of tens of thousands is then
about 0.01, and the terms of its sum ten times that."""


def adamw_bound(num_steps: int, lr: float, *, betas: tuple[float, float] = (0.9, 0.999)) -> float:
    """Return how far a tiny model's weight may lie apart after steps with `SMOOTH_EPS`.

    A step is lr m / (s + ε), of the mean m of gradients and the root s of the mean of their squares. Both lie
    no further apart than the gradients, by d, and so the step by at most lr (d / ε + c d / ε), where
    |m| <= c s by Cauchy and Schwarz: c² = Σ w² / v over the weights w and v of the two means.
    """
    if num_steps == 0:
        return 0.0
    shares = []
    for beta in betas:
        weights = [beta**age for age in range(num_steps)]
        shares.append([weight / sum(weights) for weight in weights])
    ratio = math.sqrt(sum(mean**2 / square for mean, square in zip(*shares, strict=True)))
    return num_steps * lr * (1 + ratio) * TINY_GRADIENT_CLIPPED / SMOOTH_EPS


def tiny_metric_bound(num_steps: int, lr: float) -> float:
    """Return how far a metric of a tiny model's rewards may lie apart after steps with `SMOOTH_EPS`.

    The gradient of a reward by all weights has a norm of up to 30 (measured: 27 under a linear head, 6 under
    an MLP), and weights that lie apart by a bound in either direction move it by at most λ times that of it.
    """
    return TINY_REWARD + LAMBDA * 30 * adamw_bound(num_steps, lr)
