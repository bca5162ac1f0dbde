"""Run files and the options of components: TOML to frozen dataclasses, mistakes named by table and key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward import _exports

if TYPE_CHECKING:
    from basereward.config.conversion import Component as Component
    from basereward.config.files import load_run as load_run
    from basereward.config.files import run_table as run_table
    from basereward.config.files import to_toml as to_toml
    from basereward.config.run import DataConfig as DataConfig
    from basereward.config.run import LoraConfig as LoraConfig
    from basereward.config.run import MixtureConfig as MixtureConfig
    from basereward.config.run import RunConfig as RunConfig
    from basereward.config.run import Source as Source
    from basereward.config.run import Stage as Stage
    from basereward.config.run import TrainConfig as TrainConfig
    from basereward.config.run import stage_runs as stage_runs

__getattr__, __dir__, __all__ = _exports.lazy(
    __name__,
    {
        "conversion": ("Component",),
        "files": ("load_run", "run_table", "to_toml"),
        "run": (
            "DataConfig",
            "LoraConfig",
            "MixtureConfig",
            "RunConfig",
            "Source",
            "Stage",
            "TrainConfig",
            "stage_runs",
        ),
    },
)
