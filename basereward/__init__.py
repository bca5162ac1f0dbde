"""Multimodal reward models: train, evaluate, score."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from basereward.comparison import Comparison, Message, Pair
    from basereward.ensemble import Ensemble, load_model
    from basereward.errors import BaseRewardError, ConfigError, DataError, ModelError, PluginError
    from basereward.hookspecs import hookimpl
    from basereward.media import Image, Video
    from basereward.model import RewardModel

__version__ = "0.1.0"

__all__ = [
    "BaseRewardError",
    "Comparison",
    "ConfigError",
    "DataError",
    "Ensemble",
    "Image",
    "Message",
    "ModelError",
    "Pair",
    "PluginError",
    "RewardModel",
    "Video",
    "__version__",
    "hookimpl",
    "load_model",
]

_MODULES = {
    "BaseRewardError": "errors",
    "Comparison": "comparison",
    "ConfigError": "errors",
    "DataError": "errors",
    "Ensemble": "ensemble",
    "Image": "media",
    "Message": "comparison",
    "ModelError": "errors",
    "Pair": "comparison",
    "PluginError": "errors",
    "RewardModel": "model",
    "Video": "media",
    "hookimpl": "hookspecs",
    "load_model": "ensemble",
}


def __getattr__(name: str) -> Any:
    # Importing what is asked for, and no more, keeps torch's two seconds out of `basereward --help`.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
