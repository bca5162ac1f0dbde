"""Train a run without stages, or one stage: its models, plots and evaluation in the run directory."""

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
from basereward.training.distributed import ProcessGroup
from basereward.training.loop import Training
from basereward.training.plots import plot_run
from basereward.training.progress import Display
from basereward.training.rejected_rows import RejectedRows
from basereward.training.state import SavedState


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    Args:
        run_dir: The run directory.
        model_dir: The best model by validation; without held-out data the last one.
        last_dir: The last model.
        train_seconds: Time in the training loop, validation included, over all resumptions.
        best: Metrics of the best model's validation, and its `step`; empty without held-out data.
        num_steps: Optimizer steps.
        num_rejected: Rows listed in `rejected.jsonl`.
        is_main: Whether this is the main process, which reports the result.
    """

    run_dir: Path
    model_dir: Path
    last_dir: Path
    train_seconds: float
    best: dict[str, Any]
    num_steps: int
    num_rejected: int
    is_main: bool = True


def train_stage(
    run: RunConfig,
    plugins: PluginManager,
    *,
    resume: bool,
    overwrite: bool,
    display: Display,
    group: ProcessGroup,
    plots: bool = True,
    is_last: bool = True,
) -> TrainResult:
    """Train a run without stages, or one stage.

    Args:
        run: The resolved run.
        plugins: Where components are looked up.
        resume: Whether to continue from the newest checkpoint, if there is one.
        overwrite: Whether to replace an earlier run.
        display: Shows the progress.
        group: The process group.
        plots: Whether to draw plots and write the evaluation's pages.
        is_last: Whether the process group is closed afterwards.
    """
    run_dir = group.on_main(lambda: run_directory.prepare(run, plugins, resume=resume, overwrite=overwrite))
    checkpoints = Checkpoints(
        run_dir / run_directory.CHECKPOINT,
        group,
        keep=run.train.keep_checkpoints,
        in_background=run.train.background_checkpoints,
    )
    checkpoint, damaged = checkpoints.newest() if resume else (None, [])
    for error in damaged:
        display.line(f"skipping a damaged checkpoint: {error}")
    if resume:
        start = f"resuming from {checkpoint.directory}" if checkpoint else "no checkpoint yet: starting anew"
        display.line(start)

    model_dir, last_dir = run_dir / run_directory.MODEL, run_dir / run_directory.LAST
    rejected = RejectedRows(
        run_dir / run_directory.REJECTED_FILE if group.is_main else None,
        fail=run.data.on_bad_row == "fail",
        offset=SavedState.of(checkpoint).rejected_bytes if checkpoint else 0,
    )
    with (
        closing(rejected),
        Training(run, plugins, run_dir, checkpoints, checkpoint, rejected, display, group) as training,
    ):
        training.run()
        training.save_model(last_dir)
        if not training.state.best:
            training.save_model(model_dir)
        result = TrainResult(
            run_dir=run_dir,
            model_dir=model_dir,
            last_dir=last_dir,
            train_seconds=training.state.train_seconds,
            best=training.state.best,
            num_steps=training.state.step,
            num_rejected=len(rejected),
            is_main=group.is_main,
        )
        if count := sum(
            group.by_data_rank(group.all_gather_objects(training.model.reward_model.num_truncated))
        ):
            display.line(f"cut a response short to fit max_tokens {count:,} times, each reading counted")
    if is_last:  # the rest is the main process's work alone, and no rank has to wait for it
        group.close()
    if group.is_main:
        if plots:
            plot_run(run_dir)
        if training.validator is not None and result.best:
            precision = training.model.precision
            facts = {
                "model": str(model_dir),
                "step": result.best["step"],
                "device": precision.device,
                "precision": precision.name,
            }
            evaluation = training.validator.load_results(run_dir / run_directory.BEST_REWARDS)
            save = save_report if plots else save_numbers
            save(evaluation, run_dir / run_directory.EVALUATION, facts)
    return result
