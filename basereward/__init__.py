"""Multimodal reward models: train, evaluate, score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward import _exports
from basereward._version import __version__ as __version__

if TYPE_CHECKING:
    from basereward.client import Client as Client
    from basereward.client import ServerError as ServerError
    from basereward.comparison import Comparison as Comparison
    from basereward.comparison import Pair as Pair
    from basereward.config.conversion import Component as Component
    from basereward.config.files import load_run as load_run
    from basereward.data.formats import read_comparisons as read_comparisons
    from basereward.errors import BaseRewardError as BaseRewardError
    from basereward.errors import ConfigError as ConfigError
    from basereward.errors import DataError as DataError
    from basereward.errors import ModelError as ModelError
    from basereward.errors import PluginError as PluginError
    from basereward.evaluation.audit.run import audit as audit
    from basereward.evaluation.evaluator import evaluate as evaluate
    from basereward.hookspecs import hookimpl as hookimpl
    from basereward.media.image import Image as Image
    from basereward.media.video import Video as Video
    from basereward.message import Message as Message
    from basereward.scoring.ensemble import Ensemble as Ensemble
    from basereward.scoring.loading import load_model as load_model
    from basereward.scoring.reward_model import RewardModel as RewardModel
    from basereward.training.plots import plot_runs as plot_runs
    from basereward.training.train import train as train
    from basereward.training.trainer import RewardTrainer as RewardTrainer
    from basereward.training.trainer_config import RewardConfig as RewardConfig

__getattr__, __dir__, __all__ = _exports.lazy(
    __name__,
    {
        "client": ("Client", "ServerError"),
        "comparison": ("Comparison", "Pair"),
        "message": ("Message",),
        "config.conversion": ("Component",),
        "config.files": ("load_run",),
        "data.formats": ("read_comparisons",),
        "errors": ("BaseRewardError", "ConfigError", "DataError", "ModelError", "PluginError"),
        "evaluation.audit.run": ("audit",),
        "evaluation.evaluator": ("evaluate",),
        "hookspecs": ("hookimpl",),
        "media.image": ("Image",),
        "media.video": ("Video",),
        "scoring.ensemble": ("Ensemble",),
        "scoring.loading": ("load_model",),
        "scoring.reward_model": ("RewardModel",),
        "training.plots": ("plot_runs",),
        "training.train": ("train",),
        "training.trainer": ("RewardTrainer",),
        "training.trainer_config": ("RewardConfig",),
    },
)
