"""Training: from a run file to a run directory with the best and the last model."""

from basereward.engine.checkpoints import CheckpointError
from basereward.engine.not_finite import NotFinite
from basereward.engine.stages import train
from basereward.engine.stopping import TrainingStopped
from basereward.engine.trainer import TrainResult

__all__ = ["CheckpointError", "NotFinite", "TrainResult", "TrainingStopped", "train"]
