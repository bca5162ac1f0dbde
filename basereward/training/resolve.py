"""Resolve a run: check the options of all components, fill in defaults, and compare runs by settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from basereward.config.conversion import did_you_mean
from basereward.config.run import RunConfig, Source, TrainConfig
from basereward.config.toml import to_table
from basereward.data.curation import resolved_step
from basereward.errors import ConfigError
from basereward.plugins.options import component_options
from basereward.plugins.plugin_manager import PluginManager

RESUMABLE_SETTINGS = (
    "output",
    "cache",
    "log",
    *(f"train.micro_batch_{unit}" for unit in ("size", "tokens", "patches")),
    *(f"train.{name}" for name in ("save_every", "keep_checkpoints", "log_every")),
    *(f"train.{name}" for name in ("num_workers", "parallel", "shard_ranks", "tensor_ranks")),
    "train.activation_checkpointing",
)
"""Settings that a resumed run may change, since the weights do not depend on them."""


def resolve_run(config: RunConfig, plugins: PluginManager) -> RunConfig:
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
    mixture_keys = [item.name for item in fields(Source) if item.name not in ("name", "options")]
    options = component_options(plugins.load("dataset", source.name))
    for name in mixture_keys:
        if name in options:
            raise ConfigError(f"dataset {source.name!r} has an option {name!r}, which data.train has too")
    for name in source.options:
        if name not in options and (hint := did_you_mean(name, mixture_keys)):
            raise ConfigError(f"[[data.train]] has no key {name!r}{hint}")
    return replace(source, options=plugins.resolve("dataset", source).options)


def identity(config: RunConfig) -> str:
    """Return a digest of all settings of a resolved run that its weights depend on."""
    settings = {key: value for key, value in settings_of(config).items() if key not in RESUMABLE_SETTINGS}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def changed_settings(settings: TrainConfig) -> dict[str, Any]:
    """Return the hyperparameters of a training that differ from their defaults and that weights depend on."""
    default = to_table(TrainConfig())
    return {
        name: value
        for name, value in to_table(settings).items()
        if value != default.get(name) and f"train.{name}" not in RESUMABLE_SETTINGS
    }


def settings_of(value: Any, path: str = "") -> dict[str, Any]:
    """Return the settings of a run by their dotted keys."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in fields(value)}
    if isinstance(value, list | tuple) and any(is_dataclass(item) for item in value):
        value = {str(number): item for number, item in enumerate(value)}
    if isinstance(value, Mapping):
        settings: dict[str, Any] = {}
        for key, item in value.items():
            settings |= settings_of(item, f"{path}.{key}" if path else str(key))
        return settings
    return {path.replace(".options.", "."): list(value) if isinstance(value, tuple) else value}
