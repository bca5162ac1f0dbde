"""Losses of distributions over levels, beside the ratings that were given.

Shapes: N responses, K levels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Objective = Literal["reward-loss", "cross-entropy", "ordinal"]


def level_shares(
    ratings: Tensor,  # [N] each from the least value to the greatest
    values: Tensor,  # [K] ascending
) -> Tensor:  # [N, K]
    """Return the distributions over levels that stand for ratings: all on one level where the rating is its
    value, and else on the two beside it, such that the expected value is the rating.
    """
    above = torch.searchsorted(values, ratings.contiguous()).clamp(1, len(values) - 1)  # [N]
    low, high = values[above - 1], values[above]
    share = ((ratings - low) / (high - low)).unsqueeze(1)  # [N, 1] of the upper level
    shares = ratings.new_zeros(len(ratings), len(values))
    return shares.scatter(1, above[:, None] - 1, 1 - share).scatter(1, above[:, None], share)


def cross_entropy(log_likelihoods: Tensor, shares: Tensor) -> Tensor:  # [N, K], [N, K] -> [N]
    """Return the cross-entropy of each distribution with the wanted one."""
    return -(shares * log_likelihoods).sum(1)


def ranked_probability_score(
    log_likelihoods: Tensor,  # [N, K]
    shares: Tensor,  # [N, K]
    values: Tensor,  # [K]
) -> Tensor:  # [N]
    """Return the integral of the squared difference of two cumulative distributions over the values.

    It is the continuous ranked probability score, for which a level far off costs more than the next one
    (Epstein 1969; the squared earth mover's distance of arXiv 1611.05916).
    """
    difference = (log_likelihoods.exp() - shares).cumsum(1)[:, :-1]  # [N, K - 1]
    return (difference.square() * values.diff()).sum(1)
