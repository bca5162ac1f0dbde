"""Loading a scorer by its name: a directory of a model or an ensemble, or a judge's file or address."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basereward.plugins.plugin_manager import PluginManager
from basereward.scoring.ensemble import Ensemble
from basereward.scoring.judge_settings import is_judge
from basereward.scoring.pretrained import directory_of
from basereward.scoring.reward_model import RewardModel
from basereward.scoring.writer_judge import WriterJudge
from basereward.storage import model_directory


def load_model(
    directory: str | Path,
    *,
    device: str = "auto",
    precision: str | None = None,
    plugins: PluginManager | None = None,
    verify: bool = True,
    backbone_options: Mapping[str, Any] | None = None,
    writer_options: Mapping[str, Any] | None = None,
) -> RewardModel | Ensemble:
    """Load the directory of a model or of an ensemble, strictly; both score alike.

    Args:
        directory: A directory that `RewardModel.save` or `Ensemble.save` wrote; a run directory, for its best
            model; or `owner/name` of the hub.
        device: Device of the weights; `auto` for a GPU if there is one.
        precision: Precision of matrix products, as in `RewardModel.load`.
        plugins: Plugins that provide the components; None for the installed ones.
        verify: Whether every file's SHA-256 is compared; False for directories that were verified before.
        backbone_options: Options of the backbone, or of each member's, that replace the saved ones, such as
            {"dtype": "bfloat16"}.
        writer_options: Options of the writers of an ensemble's judges, as of `Ensemble.load`.

    Raises:
        ModelError: For a wrong file or tensor, which it names.
        ConfigError: Naming a judge of an ensemble that would ask another machine.
    """
    directory = model_directory.of_run(directory_of(directory))
    settings: dict[str, Any] = {
        "device": device,
        "precision": precision,
        "plugins": plugins,
        "verify": verify,
        "backbone_options": backbone_options,
    }
    if model_directory.is_ensemble(directory):
        return Ensemble.load(directory, writer_options=writer_options, **settings)
    return RewardModel.load(directory, **settings)


def load_scorer(
    name: str | Path,
    *,
    device: str = "auto",
    precision: str | None = None,
    writer_options: Mapping[str, Any] | None = None,
) -> RewardModel | Ensemble | WriterJudge:
    """Load a model, an ensemble, or a judge that asks a writer.

    Args:
        name: A directory, a judge's TOML file, `judge+http://HOST:PORT/v1` of chat completions, or
            `decisions+http://HOST:PORT/v1` of typed decisions.
        device: Of a directory's weights.
        precision: Of its matrix products, as of `RewardModel.load`.
        writer_options: Options of the writer of a judge, or of an ensemble's judges, in the place of those of
            their files.

    Raises:
        ModelError: Naming the file or tensor of a directory that is at fault.
        ConfigError: When a judge's file is wrong.
    """
    if is_judge(name):
        return WriterJudge.load(name, **(writer_options or {}))
    return load_model(name, device=device, precision=precision, writer_options=writer_options)
