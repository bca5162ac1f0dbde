"""The progress of a training, and what a checkpoint holds of it besides tensors, as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from basereward.config.conversion import ValidationError, from_table
from basereward.hardware.precision import Precision
from basereward.training.checkpoints import STATE_FILE, Checkpoint, CheckpointError


@dataclass
class State:
    """The progress of a training.

    Args:
        step: Optimizer steps taken.
        epoch: The epoch of the next step, counted from 0.
        position: Rows of that epoch that are done.
        num_used: Comparisons trained on so far.
        train_seconds: Time spent so far.
        is_evaluation_due: Whether this step's validation was postponed because of a signal.
        num_worse: Validations since the best one.
        best: Metrics of the best validation so far, and its step.
        latest: Metrics of the latest validation, and its step.
        window: Metric sums since the last record of a step.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    num_used: int = 0
    train_seconds: float = 0.0
    is_evaluation_due: bool = False
    num_worse: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    latest: dict[str, Any] = field(default_factory=dict)
    window: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class SavedState:
    """All that a checkpoint holds besides tensors.

    Args:
        training: The progress.
        num_steps: Steps of the whole training.
        precision: The precision that it computes in.
        data_sha256: SHA-256 of the training data, as far as it has been read.
        data_epoch: The epoch that it is of.
        log_bytes: Bytes of the log.
        rejected_bytes: Bytes of the list of rejected rows.
    """

    training: State
    num_steps: int
    precision: Precision
    data_sha256: str
    data_epoch: int
    log_bytes: int
    rejected_bytes: int

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> SavedState:
        """Return the state of a checkpoint.

        Raises:
            CheckpointError: When it is of another form.
        """
        try:
            saved: SavedState = from_table(cls, checkpoint.state)
        except ValidationError as error:
            raise CheckpointError(f"{checkpoint.directory / STATE_FILE} is damaged: {error}") from error
        return saved
