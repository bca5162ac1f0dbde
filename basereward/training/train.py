"""Training: one run, or the stages of a run, each of which starts from the model of the stage before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from basereward.backbones.transformers_model import without_transformers_bars
from basereward.config.run import RunConfig, stage_runs
from basereward.errors import ConfigError
from basereward.plugins.plugin_manager import PluginManager, manager
from basereward.training import run_directory
from basereward.training.distributed import ProcessGroup
from basereward.training.progress import Display
from basereward.training.resolve import resolve_run
from basereward.training.seeding import deterministic_algorithms
from basereward.training.stage import TrainResult, train_stage


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    plots: bool = True,
    plugins: PluginManager | None = None,
) -> TrainResult:
    """Train a reward model and write it to the run directory, with the log and the evaluation.

    Under `torchrun` the processes train together. The process's random generators are seeded. SIGINT and
    SIGTERM end the training after the current step, with a checkpoint.

    A run with stages writes each stage to a subdirectory of its own, and returns the last stage's result.

    Args:
        config: The run: model, data and training settings.
        resume: Whether to continue from the newest checkpoint, of the stage that was interrupted; without a
            checkpoint the run starts from the beginning.
        overwrite: Whether to replace an earlier run in the same directory.
        progress: Whether to show progress on standard error.
        plots: Whether to draw plots and write the evaluation's pages, beside the numbers.
        plugins: Where components are looked up; None for the installed ones and the run's own.

    Raises:
        ConfigError: When a setting is wrong, or another process writes to the run directory, or it holds
            something else.
        DataError: When no row can be used, or when one can't and `data.on_bad_row` is "fail".
        CheckpointError: When a checkpoint is damaged, belongs to another training, or can't be written.
        NonFiniteError: When the loss or its gradient is not finite.
        TrainingStopped: When a signal ended the training.
    """
    plugins = plugins or manager(config.plugins)
    group = ProcessGroup.init(config.train.device)
    display = Display(enabled=progress and group.is_main)
    staged_lock = ExitStack()
    try:
        runs = [resolve_run(run, plugins) for run in stage_runs(config)]
        if any(run.train.device != config.train.device for run in runs):
            raise ConfigError("train.device: is of the whole run; a stage can't have another")
        first = 0
        if config.stages:
            staged = resolve_run(config, plugins)
            group.on_main(partial(staged_lock.enter_context, run_directory.locked(Path(config.output))))
            first = group.on_main(
                lambda: _prepare_stages(staged, runs, plugins, resume=resume, overwrite=overwrite)
            )
        with without_transformers_bars():
            for number, run in enumerate(runs[first:], start=first):
                if config.stages:
                    display.line(f"stage {number + 1} of {len(runs)}: {config.stages[number].name}")
                with ExitStack() as lock, deterministic_algorithms(run.train.deterministic):
                    group.on_main(partial(lock.enter_context, run_directory.locked(Path(run.output))))
                    staged_group = group.with_tensor_ranks(run.train.tensor_ranks)
                    result = train_stage(
                        run,
                        plugins,
                        resume=resume,
                        overwrite=overwrite,
                        display=display,
                        group=staged_group,
                        plots=plots,
                        is_last=number == len(runs) - 1,
                    )
    finally:
        staged_lock.close()
        group.close()
    return result


def _prepare_stages(
    config: RunConfig, runs: Sequence[RunConfig], plugins: PluginManager, *, resume: bool, overwrite: bool
) -> int:
    """Create the directory of a run with stages, and return the number of the stage to begin with.

    The stages before it have ended: a stage's directory is created only after the stage before it has ended.
    """
    directories = [Path(run.output) for run in runs]
    for directory in directories:
        if directory.is_dir() and (overwrite or all(map(run_directory.is_leftover, directory.iterdir()))):
            with run_directory.locked(directory):
                run_directory.remove(directory)
    run_directory.prepare(config, plugins, resume=resume, overwrite=overwrite)
    started = [number for number, path in enumerate(directories) if (path / run_directory.RUN_FILE).is_file()]
    return max(started, default=0)
