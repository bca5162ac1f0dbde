"""The plain ops in the place of the compiled ones, whatever BASEREWARD_KERNELS has chosen for the process."""

from __future__ import annotations

import pytest

from basereward.ops import _loader


def use_plain_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the ops take their plain-torch twins until the test is over."""
    monkeypatch.setattr(_loader.library, "choice", "torch")
    monkeypatch.setattr(_loader.library, "devices", frozenset())
