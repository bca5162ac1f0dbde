"""The directory of a run: its files, and when a training may write there."""

from __future__ import annotations

import shutil
from pathlib import Path

from basereward.config.files import load_run, to_toml
from basereward.config.run import RunConfig
from basereward.errors import ConfigError
from basereward.plugins.plugin_manager import PluginManager
from basereward.storage.atomic import write_text
from basereward.training.resolve import RESUMABLE_SETTINGS, resolve_run, settings_of

RUN_FILE = "run.toml"
LOG_FILE = "log.jsonl"
REJECTED_FILE = "rejected.jsonl"
CURATION_FILE = "curation.json"
NONFINITE_FILE = "not-finite.jsonl"
MODEL, LAST, CHECKPOINT = "model", "last", "checkpoint"
ADAPTER = "adapter"
BEST_REWARDS = "best-rewards.jsonl"
TENSORBOARD, PLOTS, EVALUATION = "tensorboard", "plots", "evaluation"
OWNED_FILES = (
    RUN_FILE,
    LOG_FILE,
    REJECTED_FILE,
    CURATION_FILE,
    NONFINITE_FILE,
    ADAPTER,
    BEST_REWARDS,
    MODEL,
    LAST,
    CHECKPOINT,
    TENSORBOARD,
    PLOTS,
    EVALUATION,
)
"""All that a run writes, and therefore all that a new run may remove."""

UNFINISHED_RUN_FILE = f".{RUN_FILE}.new"
LEFTOVERS = (RUN_FILE, UNFINISHED_RUN_FILE, REJECTED_FILE, CURATION_FILE)
"""Files that a run may leave before step 1; a new run may overwrite them."""


def prepare(config: RunConfig, plugins: PluginManager, *, resume: bool, overwrite: bool) -> Path:
    """Create the run directory, or check that it may be written to, and write `run.toml` there.

    Args:
        config: The resolved run.
        plugins: Resolve the earlier run's settings when it is resumed.
        resume: Whether to continue the run there, if there is one.
        overwrite: Whether to remove an earlier run.

    Raises:
        ConfigError: When it is not empty and neither `resume` nor `overwrite` is given, or when the run to be
            resumed had other settings.
    """
    directory = Path(config.output)
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"output: {directory} is a file; give a directory")
    if resume:
        _clear_unfinished(directory)
        _check_same_settings(directory, config, plugins)
    elif overwrite:
        clear(directory)
    elif directory.is_dir() and any(path.name not in LEFTOVERS for path in directory.iterdir()):
        raise ConfigError(
            f"output: {directory} is not empty; resume the run there with --resume, replace it with "
            "--overwrite, or set another output"
        )
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / RUN_FILE, to_toml(config))
    return directory


def clear(directory: Path) -> None:
    """Remove the files of an earlier run; no other file there is touched."""
    for name in OWNED_FILES:
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    _clear_unfinished(directory)


def _clear_unfinished(directory: Path) -> None:
    """Remove models that a killed run had not finished writing."""
    for name in (MODEL, LAST, ADAPTER):
        for unfinished in directory.glob(f".{name}.*"):
            shutil.rmtree(unfinished)


def _check_same_settings(directory: Path, config: RunConfig, plugins: PluginManager) -> None:
    if not (directory / RUN_FILE).is_file():
        return
    earlier = resolve_run(load_run(directory / RUN_FILE), plugins)
    before, now = settings_of(earlier), settings_of(config)
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key) and key not in RESUMABLE_SETTINGS:
            raise ConfigError(
                f"{key} is {now.get(key)!r}, but {before.get(key)!r} in {directory / RUN_FILE}; a run is "
                "resumed with the settings it was started with, or replaced with --overwrite"
            )
