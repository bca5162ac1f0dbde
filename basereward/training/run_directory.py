"""The directory of a run: its files, and when a training may write there."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from basereward.config.files import load_run, to_toml
from basereward.config.run import RunConfig
from basereward.errors import ConfigError
from basereward.plugins.plugin_manager import PluginManager
from basereward.storage.atomic import (
    LEFTOVER,
    file_names,
    is_aside,
    remove_abandoned,
    restore,
    write_text,
)
from basereward.storage.locks import hold_lock
from basereward.storage.outputs import check_outside_models
from basereward.storage.reading import is_regular
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

OWN_PARTS = {
    CHECKPOINT: re.compile(r"(unfinished-)?step-\d{8,}/(state\.json|[a-z]+(-\d{5})?\.safetensors)"),
    TENSORBOARD: re.compile(r"events\.out\.tfevents\.[^/]+"),
    PLOTS: re.compile(r"training\.png"),
    EVALUATION: re.compile(
        r"report\.(json|md|html)|(members/[^/]+/)?rewards\.jsonl|(rejected|verdicts)\.jsonl|"
        r"wrong\.(html|png)|plots/[^/]+\.png|\.basereward-report"
    ),
    ADAPTER: re.compile(r"adapter_(config\.json|model\.safetensors)"),
}
"""The names of all that a run writes into its directories, but for models, which list their files."""

LOCK_FILE = ".basereward-run"
"""Marks a run's directory, and is locked while a process writes there; it stays, since locks are of files."""

UNFINISHED = "unfinished-"
"""Begins the name of a checkpoint that is being written."""

LEFTOVERS = (RUN_FILE, LOG_FILE, REJECTED_FILE, CURATION_FILE, NONFINITE_FILE, TENSORBOARD)
"""All that a run may leave before its first checkpoint; a new run may replace it."""


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes from writing a run's directory, which is made if it isn't there.

    Raises:
        ConfigError: When another process writes there, or the directory holds files of a run's names that no
            run has written.
    """
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"output: {directory} is a file; give a directory")
    check_outside_models(directory, "output:")
    check_ours(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with hold_lock(directory / LOCK_FILE, "A run of BaseReward writes to this directory."):
        yield


def check_ours(directory: Path) -> None:
    """Refuse a directory without the mark of a run that holds files of a run's names: they are somebody's.

    Raises:
        ConfigError: Naming one of them.
    """
    if is_regular(directory / LOCK_FILE):
        return
    for name in OWNED_FILES:
        if os.path.lexists(directory / name):
            raise ConfigError(
                f"output: {directory / name} is not of a run of this BaseReward ({directory} has no "
                f"{LOCK_FILE}), and would be replaced; set another output, or move it"
            )


def is_taken(directory: Path) -> bool:
    """Tell whether a directory holds anything that a run has not left before its first checkpoint."""
    return any(not _is_leftover(path) for path in directory.iterdir())


def _is_leftover(path: Path) -> bool:
    if path.name == CHECKPOINT and path.is_dir():
        return all(part.name.startswith(UNFINISHED) for part in path.iterdir())
    return path.name in (LOCK_FILE, *LEFTOVERS) or is_aside(path, RUN_FILE)


def prepare(config: RunConfig, plugins: PluginManager, *, resume: bool, overwrite: bool) -> Path:
    """Create the run directory, or check that it may be written to, and write `run.toml` there.

    Args:
        config: The resolved run.
        plugins: Resolve the earlier run's settings when it is resumed.
        resume: Whether to continue the run there, if there is one.
        overwrite: Whether to remove an earlier run.

    The directory must be `locked`.

    Raises:
        ConfigError: When more is there than a run leaves that ended before its first checkpoint, and neither
            `resume` nor `overwrite` is given, or when the run to be
            resumed had other settings.
    """
    directory = Path(config.output)
    if resume:
        _clear_unfinished(directory)
        _check_kinds(directory)
        _check_same_settings(directory, config, plugins)
    elif not overwrite and is_taken(directory):
        raise ConfigError(
            f"output: {directory} is not empty; resume the run there with --resume, replace it with "
            "--overwrite, or set another output"
        )
    else:
        clear(directory)
    write_text(directory / RUN_FILE, to_toml(config))
    return directory


def clear(directory: Path) -> None:
    """Remove the files of an earlier run; no other file there is touched.

    Raises:
        ConfigError: When they are not of a run, or a file that no run has written lies among them; nothing is
            removed then.
    """
    check_ours(directory)
    _clear_unfinished(directory)
    for name in OWNED_FILES:
        if foreign := foreign_files(directory / name):
            raise ConfigError(
                f"output: {directory / name / min(foreign)} was not written by a run, and would be removed "
                f"with {directory / name}; move it, or set another output"
            )
    for name in OWNED_FILES:
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def discard(directory: Path, names: Iterable[str]) -> None:
    """Remove some of the directories of a run, but for those in which a file lies that no run has written."""
    if not is_regular(directory / LOCK_FILE):
        return
    for name in names:
        path = directory / name
        if path.is_dir() and not path.is_symlink() and not foreign_files(path):
            shutil.rmtree(path, ignore_errors=True)


def foreign_files(path: Path) -> set[str]:
    """Return the files in a directory of a run that no run has written."""
    if not path.is_dir() or path.is_symlink():
        return set()
    if path.name in (MODEL, LAST):
        from basereward.storage import model_directory  # which imports torch

        return model_directory.foreign_files(path)
    pattern = OWN_PARTS.get(path.name)
    return {
        name
        for name in file_names(path)
        if pattern is None or not (pattern.fullmatch(name) or LEFTOVER.fullmatch(Path(name).name))
    }


def remove(directory: Path) -> None:
    """Remove the files of an earlier run, and the locked directory too where nothing else is there."""
    clear(directory)
    if {path.name for path in directory.iterdir()} == {LOCK_FILE}:
        (directory / LOCK_FILE).unlink()
        directory.rmdir()


def _clear_unfinished(directory: Path) -> None:
    """Put back what a killed run was about to replace, and remove what it had not finished writing."""
    for name in (MODEL, LAST, ADAPTER):
        restore(directory / name)
    for name in OWNED_FILES:
        remove_abandoned(directory, name)


def _check_kinds(directory: Path) -> None:
    """Refuse what is neither file nor directory in the place of a run's files, where it could be waited for.

    Raises:
        ConfigError: Naming it.
    """
    for name in OWNED_FILES:
        path = directory / name
        if os.path.lexists(path) and not (path.is_file() or path.is_dir()):
            raise ConfigError(f"output: {path} is neither a file nor a directory; remove it")


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
