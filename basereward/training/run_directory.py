"""The directory of a run: what is in it, and when a training may write there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from basereward.config.conversion import did_you_mean
from basereward.config.files import load_run, to_toml
from basereward.config.run import RunConfig, Source
from basereward.data.curation import resolved_step
from basereward.errors import ConfigError
from basereward.plugins.options import component_options
from basereward.plugins.plugin_manager import PluginManager
from basereward.training.nonfinite import ROWS_FILE

RUN_FILE = "run.toml"
LOG_FILE = "log.jsonl"
REJECTED_FILE = "rejected.jsonl"
CURATION_FILE = "curation.json"
MODEL, LAST, CHECKPOINT = "model", "last", "checkpoint"
ADAPTER = "adapter"
BEST_REWARDS = "best-rewards.jsonl"
TENSORBOARD, PLOTS, EVALUATION = "tensorboard", "plots", "evaluation"
OWN = (
    RUN_FILE,
    LOG_FILE,
    REJECTED_FILE,
    CURATION_FILE,
    ROWS_FILE,
    ADAPTER,
    BEST_REWARDS,
    MODEL,
    LAST,
    CHECKPOINT,
    TENSORBOARD,
    PLOTS,
    EVALUATION,
)
"""All that a training writes, and so all that a new one may remove."""

UNFINISHED_RUN_FILE = f".{RUN_FILE}.new"
VAIN = (RUN_FILE, UNFINISHED_RUN_FILE, REJECTED_FILE, CURATION_FILE)
"""What a training that failed before its first step leaves: no reason to keep the next one out."""

FREE = (
    "output",
    "cache",
    *(f"train.micro_batch_{unit}" for unit in ("size", "tokens", "patches")),
    *(f"train.{name}" for name in ("save_every", "keep_checkpoints", "log_every")),
    *(f"train.{name}" for name in ("num_workers", "parallel", "shard_ranks")),
    "train.activation_checkpointing",
)
"""What a resumed run may set otherwise, since the course of the training doesn't depend on it."""


def resolved(config: RunConfig, plugins: PluginManager) -> RunConfig:
    """Return a run with every component's options checked and filled in.

    Raises:
        PluginError: When a component is not found.
        ConfigError: When an option is unknown or wrong.
    """
    data = replace(
        config.data,
        train=tuple(_resolved_source(source, plugins) for source in config.data.train),
        eval=tuple(plugins.resolve("dataset", component) for component in config.data.eval),
        curation=tuple(map(resolved_step, config.data.curation)),
    )
    backbone = config.backbone
    if config.init is not None:
        backbone = replace(backbone, options={"model": config.init, **backbone.options})
    return replace(
        config,
        backbone=plugins.resolve("backbone", backbone),
        head=plugins.resolve("head", config.head),
        loss=plugins.resolve("loss", config.loss),
        paradigm=plugins.resolve("paradigm", config.paradigm),
        data=data,
    )


def _resolved_source(source: Source, plugins: PluginManager) -> Source:
    own = [item.name for item in fields(Source) if item.name not in ("name", "options")]
    known = component_options(plugins.load("dataset", source.name))
    for name in own:
        if name in known:
            raise ConfigError(f"dataset {source.name!r} has an option {name!r}, which data.train has too")
    for name in source.options:
        if name not in known and (hint := did_you_mean(name, own)):
            raise ConfigError(f"[[data.train]] has no key {name!r}{hint}")
    return replace(source, options=plugins.resolve("dataset", source).options)


def identity(config: RunConfig) -> str:
    """Return a digest of all settings of a resolved run that decide the course of the training."""
    settings = {key: value for key, value in _settings(config).items() if key not in FREE}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def prepare(config: RunConfig, plugins: PluginManager, *, resume: bool, overwrite: bool) -> Path:
    """Make the run directory, or check that it may be written in, and leave `run.toml` there.

    Raises:
        ConfigError: When it holds something and neither `resume` nor `overwrite` is given, or when the run to
            be resumed had other settings.
    """
    directory = Path(config.output)
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"output: {directory} is a file; give a directory")
    if resume:
        _clear_unfinished(directory)
        _check_same(directory, config, plugins)
    elif overwrite:
        clear(directory)
    elif directory.is_dir() and any(path.name not in VAIN for path in directory.iterdir()):
        raise ConfigError(
            f"output: {directory} is not empty; resume the run there with --resume, replace it with "
            "--overwrite, or set another output"
        )
    directory.mkdir(parents=True, exist_ok=True)
    aside = directory / UNFINISHED_RUN_FILE
    aside.write_text(to_toml(config), encoding="utf-8")
    os.replace(aside, directory / RUN_FILE)
    return directory


def clear(directory: Path) -> None:
    """Remove what an earlier run left; whatever else lies there is not ours to remove."""
    for name in OWN:
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    _clear_unfinished(directory)


def _clear_unfinished(directory: Path) -> None:
    """Remove models that a killed run was writing."""
    for name in (MODEL, LAST, ADAPTER):
        for left in directory.glob(f".{name}.*"):
            shutil.rmtree(left)


def _check_same(directory: Path, config: RunConfig, plugins: PluginManager) -> None:
    if not (directory / RUN_FILE).is_file():
        return
    before, now = _settings(resolved(load_run(directory / RUN_FILE), plugins)), _settings(config)
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key) and key not in FREE:
            raise ConfigError(
                f"{key} is {now.get(key)!r}, but {before.get(key)!r} in {directory / RUN_FILE}; a run is "
                "resumed with the settings it was started with, or replaced with --overwrite"
            )


def _settings(value: Any, path: str = "") -> dict[str, Any]:
    """Return the settings of a run by their dotted keys."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in fields(value)}
    if isinstance(value, list | tuple) and any(is_dataclass(item) for item in value):
        value = {str(number): item for number, item in enumerate(value)}
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for key, item in value.items():
            found |= _settings(item, f"{path}.{key}" if path else str(key))
        return found
    return {path.replace(".options.", "."): list(value) if isinstance(value, tuple) else value}
