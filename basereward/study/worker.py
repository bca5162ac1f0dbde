"""One run of a study: train it, evaluate its model on the benchmarks, and mark it as done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from basereward.backbones.feature_cache import FeatureCache
from basereward.comparison import Comparison
from basereward.config.conversion import Component
from basereward.config.files import load_run, to_toml
from basereward.config.run import RunConfig, stage_runs
from basereward.errors import BaseRewardError, ConfigError, DataError
from basereward.evaluation import evaluate
from basereward.evaluation.model_comparison import REWARDS_FILE
from basereward.evaluation.report import save_numbers, save_verdicts
from basereward.hardware.parent import ended_with_parent
from basereward.paradigms.verdicts import Verdicts
from basereward.plugins.plugin_manager import manager
from basereward.protocols import Benchmark
from basereward.scoring.reward_model import RewardModel
from basereward.storage.atomic import write_text
from basereward.storage.reading import read_json, understood
from basereward.training.run_directory import ADAPTER, CHECKPOINT, EVALUATION, LAST, MODEL, discard
from basereward.training.shutdown import TrainingStopped
from basereward.training.train import train

DONE_FILE = "study.json"
"""Written last: a run directory with it is not run again."""

ERROR_FILE = "error.txt"
REPORT_FILE = "report.json"
BENCHMARKS = "benchmarks"
UNASKED = "unasked"
"""Key of a benchmark's report that says why the model has no rewards."""


@dataclass(frozen=True)
class WorkerTask:
    """A run for a worker process.

    Attributes:
        config: The run.
        benchmarks: The benchmarks to evaluate its model on.
        keep: Whether its model is kept.
        launch: The command that starts `basereward` for the training; empty to train in this process.
        cache_key: Key of the features that the run caches. Tasks with the same key read the same inputs
            through the same frozen weights, so that one computes the features of all. "" without a cache.
        trains: Whether the model is trained first; else its `init` is evaluated as it is.
    """

    config: RunConfig
    benchmarks: tuple[Component, ...] = ()
    keep: Literal["model", "rewards"] = "model"
    launch: tuple[str, ...] = ()
    cache_key: str = ""
    trains: bool = True


@dataclass(frozen=True)
class TaskOutcome:
    """The end of a task.

    Attributes:
        error: Why it failed; empty if it did not.
        is_stopped: Whether a signal ended it, so that it can be resumed.
    """

    error: str = ""
    is_stopped: bool = False


def read_facts(path: Path) -> dict[str, Any]:
    """Return the JSON object that a run has left, such as `study.json`.

    Raises:
        ConfigError: When it can't be read.
    """
    with understood(path, ConfigError):
        facts = read_json(path)
        if not isinstance(facts, dict):
            raise ValueError("it is no JSON object")
        return facts


def is_done(config: RunConfig, benchmarks: tuple[Component, ...]) -> bool:
    """Tell whether a run has all its results."""
    files = [DONE_FILE, *(f"{folder_of(benchmark)}/{REPORT_FILE}" for benchmark in benchmarks)]
    return all(Path(config.output, file).is_file() for file in files)


def folder_of(benchmark: Component | None) -> str:
    """Return the folder of a benchmark's rewards in a run's directory; of the held-out data for None.

    The same benchmark on other data has another folder.
    """
    if benchmark is None:
        return EVALUATION
    options = sorted((key, str(value)) for key, value in benchmark.options.items())
    digest = hashlib.sha256(json.dumps([benchmark.name, options]).encode()).hexdigest()
    return f"{BENCHMARKS}/{benchmark.name}-{digest[:8]}"


def run_task(task: WorkerTask) -> TaskOutcome:
    """Do the rest of a run; an error is returned, and its traceback is kept in `error.txt`."""
    directory = Path(task.config.output)
    (directory / ERROR_FILE).unlink(missing_ok=True)
    try:
        _run_task(task, directory)
    except TrainingStopped:
        return TaskOutcome(is_stopped=True)
    except Exception as error:
        directory.mkdir(parents=True, exist_ok=True)
        write_text(directory / ERROR_FILE, traceback.format_exc(), errors="backslashreplace")
        is_ours = isinstance(error, BaseRewardError)
        return TaskOutcome(str(error) if is_ours else f"{type(error).__name__}: {error}")
    return TaskOutcome()


def _run_task(task: WorkerTask, directory: Path) -> None:
    start = time.monotonic()
    if not task.trains:
        directory.mkdir(parents=True, exist_ok=True)
        _benchmark(task, Path(str(task.config.init)), directory)
        _mark_done(directory, start)
        return
    last = Path(stage_runs(task.config)[-1].output)
    if not (directory / DONE_FILE).is_file():
        _train(task)
    if task.benchmarks:
        _benchmark(task, last / MODEL, directory)
    if last != directory and task.config.data.eval:  # the results of several stages are those of the last
        shutil.copytree(last / EVALUATION, directory / EVALUATION, dirs_exist_ok=True)
    _mark_done(directory, start)
    _clear(task, directory, last)


def _mark_done(directory: Path, start: float) -> None:
    facts = {"seconds": round(time.monotonic() - start, 3)}
    write_text(directory / DONE_FILE, json.dumps(facts) + "\n")


def _train(task: WorkerTask) -> None:
    if not task.launch:
        train(task.config, resume=True, progress=False, plots=False)
        return
    run_file = Path(f"{task.config.output}.toml")
    run_file.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(run_file) and load_run(run_file).output != task.config.output:
        raise ConfigError(f"{run_file} is not of this study, and would be replaced; move it")
    write_text(run_file, to_toml(task.config))
    command = [*task.launch, "train", str(run_file), "--resume", "--quiet"]
    subprocess.run(command, check=True, preexec_fn=ended_with_parent())


def _benchmark(task: WorkerTask, model_dir: Path, directory: Path) -> None:
    """Evaluate the model on the benchmarks, and save its rewards."""
    config = task.config
    plugins = manager(config.plugins)
    setting = config.train.precision
    model = RewardModel.load(
        model_dir,
        device=config.train.device,
        precision=None if setting == "auto" else setting,
        plugins=plugins,
        verify=False,
    )
    cache: FeatureCache | None = None
    if config.cache is not None and is_frozen(config, set(model.backbone.parts())):
        model.backbone.requires_grad_(False)
        cache = FeatureCache(config.cache)
        model.paradigm.attach_feature_cache(cache, model.precision.cache_key)
    size = config.train.micro_batch_size or config.train.batch_size
    for component in task.benchmarks:
        folder = directory / folder_of(component)
        if (folder / REPORT_FILE).is_file():
            continue  # of another study with the same run
        benchmark: Benchmark = plugins.build("benchmark", component)
        if not (model.reads_images or any(is_text(item) for item in benchmark.comparisons())):
            save_unasked(folder, "the model reads no images, and every comparison has some")
            continue
        verdicts: dict[int, Verdicts] = {}
        try:
            evaluation = evaluate(model, benchmark.comparisons(), batch_size=size, verdicts=verdicts)
        except DataError as error:
            if not verdicts:
                raise
            # A judge in whose texts no verdict can be read has numbers by the protocols that count that.
            save_unasked(folder, error.reason)
            save_verdicts(verdicts, folder)
            continue
        save_numbers(evaluation, folder, {"benchmark": component.name, **model.computed})
    if cache is not None:
        cache.flush()


def is_text(comparison: Comparison) -> bool:
    """Tell whether a comparison has neither images nor videos."""
    return not (comparison.images or comparison.videos)


def save_unasked(folder: Path, reason: str) -> None:
    """Write the results of a benchmark of which a model has no rewards: none, and the reason."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REWARDS_FILE).write_text("", encoding="utf-8")
    (folder / REPORT_FILE).write_text(json.dumps({UNASKED: reason}) + "\n", encoding="utf-8")


def is_frozen(config: RunConfig, parts: set[str]) -> bool:
    """Tell whether nothing of a run's backbone is trained.

    Args:
        config: The run.
        parts: The names of the backbone's parts.
    """
    return config.train.lora is None and parts <= set(config.train.freeze)


def _clear(task: WorkerTask, directory: Path, last: Path) -> None:
    """Remove the files for resuming, and the model if it isn't kept."""
    names = [CHECKPOINT, LAST, *([MODEL, ADAPTER] if task.keep == "rewards" else [])]
    for parent in {directory, last}:
        discard(parent, names)
