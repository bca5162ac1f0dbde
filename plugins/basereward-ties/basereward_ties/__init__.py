"""Bradley-Terry with ties: losses that learn from pairs which people found equally good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping


@hookimpl
def basereward_losses() -> Mapping[str, str]:
    """Give ties a probability of their own."""
    return {"davidson": "basereward_ties.losses:Davidson", "rao-kupper": "basereward_ties.losses:RaoKupper"}
