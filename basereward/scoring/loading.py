"""Loading a directory, of a model or of an ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basereward.plugins.plugin_manager import PluginManager
from basereward.scoring.ensemble import Ensemble
from basereward.scoring.reward_model import RewardModel
from basereward.storage import model_directory


def load_model(
    directory: str | Path,
    *,
    device: str = "auto",
    precision: str | None = None,
    plugins: PluginManager | None = None,
    verify: bool = True,
    backbone_options: Mapping[str, Any] | None = None,
) -> RewardModel | Ensemble:
    """Load the directory of a model or of an ensemble, strictly; both score alike.

    Args:
        directory: What `RewardModel.save` or `Ensemble.save` wrote.
        device: Where the weights go; `auto` for a GPU where there is one.
        precision: Of matrix products, as of `RewardModel.load`.
        plugins: Where components are looked up; None for the installed ones.
        verify: Whether every file's SHA-256 is compared; False for directories that were verified before.
        backbone_options: Options of the backbone, or of each member's, that replace the saved ones, such as
            {"dtype": "bfloat16"}.

    Raises:
        ModelError: Naming the file or tensor that is at fault.
    """
    kind = Ensemble if model_directory.is_ensemble(Path(directory)) else RewardModel
    return kind.load(
        directory,
        device=device,
        precision=precision,
        plugins=plugins,
        verify=verify,
        backbone_options=backbone_options,
    )
