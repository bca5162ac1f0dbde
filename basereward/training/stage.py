"""From a run's settings to its directory: train, and leave models, plots and an evaluation behind."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basereward.config.run import RunConfig
from basereward.evaluation.report import save_numbers, save_report
from basereward.plugins.plugin_manager import PluginManager
from basereward.training import run_directory
from basereward.training.checkpoints import Checkpoints
from basereward.training.distributed import Ranks
from basereward.training.loop import Training
from basereward.training.plots import draw_course
from basereward.training.progress import Display
from basereward.training.rejected_rows import RejectedRows


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves behind.

    Args:
        run_dir: The run directory.
        model_dir: The model that was best on held-out data; without such data the last one.
        last_dir: The last model.
        train_seconds: Time in the training loop, evaluations included, over all resumptions.
        best: Metrics of the best model's evaluation, and its `step`; empty without held-out data.
        num_steps: Optimizer steps.
        num_rejected: Rows listed in `rejected.jsonl`.
        is_first: Whether this process is the one that reports, of those that trained together.
    """

    run_dir: Path
    model_dir: Path
    last_dir: Path
    train_seconds: float
    best: dict[str, Any]
    num_steps: int
    num_rejected: int
    is_first: bool = True


def train_stage(
    config: RunConfig,
    plugins: PluginManager,
    *,
    resume: bool,
    overwrite: bool,
    display: Display,
    ranks: Ranks,
    plots: bool = True,
    is_last: bool = True,
) -> TrainResult:
    """Train a run without stages, or one stage.

    Args:
        config: The resolved run.
        plugins: Where components are looked up.
        resume: Whether to go on from the newest checkpoint, if there is one.
        overwrite: Whether to replace an earlier run.
        display: Shows how it goes.
        ranks: The processes that train together.
        plots: Whether plots are drawn, and the evaluation's pages written.
        is_last: Whether they part after it.
    """
    run_dir = ranks.first(lambda: run_directory.prepare(config, plugins, resume=resume, overwrite=overwrite))
    checkpoints = Checkpoints(run_dir / run_directory.CHECKPOINT, ranks, keep=config.train.keep_checkpoints)
    checkpoint, passed_over = checkpoints.newest() if resume else (None, [])
    for error in passed_over:
        display.line(f"passing over a damaged checkpoint: {error}")
    if resume:
        place = f"resuming from {checkpoint.directory}" if checkpoint else "no checkpoint yet: starting anew"
        display.line(place)

    model_dir, last_dir = run_dir / run_directory.MODEL, run_dir / run_directory.LAST
    rejected = RejectedRows(
        run_dir / run_directory.REJECTED_FILE if ranks.is_first else None,
        fail=config.data.on_bad_row == "fail",
        offset=checkpoint.state["rejected_bytes"] if checkpoint else 0,
    )
    with (
        closing(rejected),
        Training(config, plugins, run_dir, checkpoints, checkpoint, rejected, display, ranks) as training,
    ):
        training.run()
        training.save_model(last_dir)
        if training.held_out is None:
            training.save_model(model_dir)
        result = TrainResult(
            run_dir=run_dir,
            model_dir=model_dir,
            last_dir=last_dir,
            train_seconds=training.state.train_seconds,
            best=training.state.best,
            num_steps=training.state.step,
            num_rejected=len(rejected),
            is_first=ranks.is_first,
        )
        if count := sum(ranks.gather(training.learner.model.num_truncated)):
            display.line(f"cut a response short to fit max_tokens {count:,} times, each reading counted")
    if is_last:  # what is left is small, and nobody is to wait for it
        ranks.leave()
    if ranks.is_first:
        if plots:
            draw_course(run_dir, warn=display.line)
        if training.held_out is not None:
            facts = {"model": str(model_dir), "step": result.best["step"]}
            evaluation = training.held_out.remembered(run_dir / run_directory.BEST_REWARDS)
            save = save_report if plots else save_numbers
            save(evaluation, run_dir / run_directory.EVALUATION, facts)
    return result
