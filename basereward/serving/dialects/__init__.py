"""The APIs that the server speaks, one file each; all read into calls and write out of answers."""

from __future__ import annotations

from basereward.serving.dialects.dialect import Dialect
from basereward.serving.dialects.native import Native
from basereward.serving.dialects.openrlhf import OpenRLHF


def dialects() -> list[Dialect]:
    """Return every API."""
    return [Native(), OpenRLHF()]
