"""BaseReward's training logs in Weights & Biases: install it, and every training is logged there too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from basereward.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@hookimpl
def basereward_log(record: Mapping[str, Any], run_dir: Path) -> None:
    """Send a record on to the W&B run of its run directory."""
    from basereward_wandb.runs import RUNS

    RUNS.log(record, run_dir)
