"""Ensemblers: the rewards of several models to one reward a response."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Mean:
    """The mean of the members' rewards; a member with larger rewards counts for more."""

    def __call__(self, members: Tensor) -> Tensor:  # [M, N] -> [N]
        """Return the mean reward [N] in the members' type.

        Raises:
            ValueError: When `members` isn't [M, N] with M >= 1.
        """
        if members.ndim != 2 or not len(members):
            raise ValueError(f"members must be [M, N] with M >= 1, not of shape {list(members.shape)}")
        # In fp64, so that rounding doesn't make the result depend on the order of members.
        return members.double().mean(dim=0).to(members.dtype)
