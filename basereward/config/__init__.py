"""Run files and the options of components: TOML to frozen dataclasses, mistakes named by table and key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward import _exports

if TYPE_CHECKING:
    from basereward.config.run import Component as Component
    from basereward.config.run import DataConfig as DataConfig
    from basereward.config.run import LoraConfig as LoraConfig
    from basereward.config.run import MixtureConfig as MixtureConfig
    from basereward.config.run import RunConfig as RunConfig
    from basereward.config.run import Source as Source
    from basereward.config.run import Stage as Stage
    from basereward.config.run import TrainConfig as TrainConfig
    from basereward.config.run import load_run as load_run
    from basereward.config.run import run_table as run_table
    from basereward.config.run import stage_runs as stage_runs
    from basereward.config.run import to_toml as to_toml
    from basereward.config.run import value_of as value_of

__getattr__, __dir__, __all__ = _exports.lazy(
    __name__,
    {
        "run": (
            "Component",
            "DataConfig",
            "LoraConfig",
            "MixtureConfig",
            "RunConfig",
            "Source",
            "Stage",
            "TrainConfig",
            "load_run",
            "run_table",
            "stage_runs",
            "to_toml",
            "value_of",
        ),
    },
)
