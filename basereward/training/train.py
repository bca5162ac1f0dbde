"""Training: one run, or several after each other, each of which goes on with the model of the one before."""

from __future__ import annotations

from pathlib import Path

from basereward.config.run import RunConfig, stage_runs
from basereward.plugins.plugin_manager import PluginManager, manager
from basereward.training import run_directory
from basereward.training.distributed import Ranks
from basereward.training.progress import Display, one_bar_at_a_time
from basereward.training.stage import TrainResult, train_once


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    plots: bool = True,
    plugins: PluginManager | None = None,
) -> TrainResult:
    """Train a reward model and leave it, with all that is known about its training, in the run directory.

    Under `torchrun` the processes train together. Seeds the process's random generators. SIGINT and SIGTERM
    end the training after the step in hand, with a checkpoint.

    A run of several stages leaves each in a directory of its own in the run's, and returns the last one's
    result.

    Args:
        config: What to train on what, and how.
        resume: Whether to go on from the newest checkpoint, of the stage that was interrupted, or to start if
            there is none yet.
        overwrite: Whether to replace an earlier run in the same directory.
        progress: Whether to show progress on standard error.
        plots: Whether plots are drawn, and the evaluation's pages written, beside the numbers.
        plugins: Where components are looked up; None for the installed ones and the run's own.

    Raises:
        ConfigError: When a setting is wrong, or the run directory is in use.
        DataError: When a row can't be used and that is to end the training, or when no row can be used.
        CheckpointError: When a checkpoint is damaged, is of another training, or can't be written.
        NotFinite: When the loss or its gradient is not finite.
        TrainingStopped: When a signal ended the training.
    """
    plugins = plugins or manager(config.plugins)
    ranks = Ranks.join()
    display = Display(enabled=progress and ranks.is_first)
    runs = stage_runs(config)
    first = 0
    try:
        if config.stages:
            first = ranks.first(lambda: _prepare(config, plugins, resume=resume, overwrite=overwrite))
        with one_bar_at_a_time():
            for number in range(first, len(runs)):
                if config.stages:
                    display.line(f"stage {number + 1} of {len(runs)}: {config.stages[number].name}")
                result = train_once(
                    runs[number],
                    plugins,
                    resume=resume,
                    overwrite=overwrite,
                    display=display,
                    ranks=ranks,
                    plots=plots,
                    is_last=number == len(runs) - 1,
                )
    finally:
        ranks.leave()
    return result


def _prepare(config: RunConfig, plugins: PluginManager, *, resume: bool, overwrite: bool) -> int:
    """Make the directory of a run of stages, and return the number of the stage to begin with.

    Those before it have ended, since a stage's directory isn't made before the one before it has ended.
    """
    places = [Path(run.output) for run in stage_runs(config)]
    for place in places:
        is_vain = place.is_dir() and all(path.name in run_directory.VAIN for path in place.iterdir())
        if overwrite or is_vain:
            run_directory.clear(place)
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
    run_directory.prepare(
        run_directory.resolved(config, plugins), plugins, resume=resume, overwrite=overwrite
    )
    begun = [number for number, place in enumerate(places) if (place / run_directory.RUN_FILE).is_file()]
    return max(begun, default=0)
