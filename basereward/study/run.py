"""Run a study: do the runs that are not done yet, in parallel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from basereward.config.conversion import Component
from basereward.plugins.plugin_manager import PluginManager
from basereward.reporting.progress import progress_bar
from basereward.study.pool import run_tasks
from basereward.study.spec import PlannedRun, Study
from basereward.study.worker import DONE_FILE, WorkerTask, is_done
from basereward.training.run_directory import clear, locked


@dataclass(frozen=True)
class StudyRun:
    """The outcome of running a study.

    Attributes:
        num_before: Runs that were done before.
        num_done: Runs that were done now.
        failed: Why runs failed, by their names.
    """

    num_before: int
    num_done: int
    failed: dict[str, str]


def run_study(
    study: Study,
    runs: Sequence[PlannedRun],
    plugins: PluginManager,
    *,
    num_jobs: int,
    overwrite: bool = False,
    progress: bool = False,
) -> StudyRun:
    """Do the runs that are left, or all to `overwrite`; if one fails, the others go on."""
    benchmarks = benchmarks_of(study, plugins)
    # Cells that come out as the same run share it.
    by_output = {run.config.output: run for run in runs}
    if overwrite:
        for run in by_output.values():
            directory = Path(run.config.output)
            if directory.is_dir():
                with locked(directory):
                    clear(directory)
                    (directory / DONE_FILE).unlink(missing_ok=True)
    left = [run for run in by_output.values() if not is_done(run.config, benchmarks)]
    tasks = [task_of(study, run, benchmarks) for run in left]
    num_before = len(by_output) - len(left)
    failed: dict[str, str] = {}
    with progress_bar("runs", len(by_output), is_shown=progress and bool(left)) as advance:
        advance(num_before)
        for task, outcome in run_tasks(tasks, num_jobs):
            name = by_output[task.config.output].name
            if outcome.error or outcome.is_stopped:
                failed[name] = outcome.error or "was stopped; the same command resumes it"
            advance(1, f"{len(failed)} failed" if failed else None)
    return StudyRun(num_before, len(left) - len(failed), failed)


def task_of(study: Study, run: PlannedRun, benchmarks: tuple[Component, ...]) -> WorkerTask:
    """Return a run of a study for a worker process."""
    return WorkerTask(run.config, benchmarks, study.keep, study.launch, _cache_key(run), trains=study.trains)


def benchmarks_of(study: Study, plugins: PluginManager) -> tuple[Component, ...]:
    """Return the study's benchmarks, their options checked and filled in."""
    return tuple(
        plugins.resolve("benchmark", Component(item.name, item.options)) for item in study.benchmarks
    )


def _cache_key(run: PlannedRun) -> str:
    """Return the settings that decide on the content of a run's feature cache; "" without one."""
    config = run.config
    if config.cache is None:
        return ""
    layer = config.head.options.get("layer")
    settings = [config.cache, config.init, config.backbone, layer, config.data, config.train.freeze]
    return json.dumps(settings, default=str)
