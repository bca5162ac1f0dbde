"""Ensemblers: the rewards of several models in, one reward a response out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward.protocols import Ensembler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from basereward import Comparison


class Median(Ensembler):
    """The middle of the members' rewards, which a single wild member doesn't move."""

    def __call__(self, members: Tensor, comparisons: Sequence[Comparison]) -> Tensor:  # [M, N] -> [N]
        """Return the median [N], between the two in the middle where there are two."""
        return members.double().quantile(0.5, dim=0).to(members.dtype)
