"""Rewards made of several attributes, weighed by what is asked; and rewards that know how sure they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = "basereward_multi_objective"


@hookimpl
def basereward_heads() -> Mapping[str, str]:
    """Heads that know more of a response than one number."""
    return {"gated": f"{PACKAGE}.heads:Gated", "uncertain": f"{PACKAGE}.heads:Uncertain"}


@hookimpl
def basereward_paradigms() -> Mapping[str, str]:
    """Ways to train them."""
    return {
        "multi-objective": f"{PACKAGE}.paradigms:MultiObjective",
        "uncertain": f"{PACKAGE}.paradigms:UncertainReward",
    }
