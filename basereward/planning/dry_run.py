"""Look at all that a run needs before it is started: settings, paths, first rows, benchmarks, memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from basereward.comparison import Comparison
from basereward.config.conversion import Component
from basereward.config.run import RunConfig, Source
from basereward.costs.accelerators import Accelerator
from basereward.data.mixing import multimodal_sources
from basereward.data.mixture import quotas
from basereward.data.ranking_pairs import open_source
from basereward.errors import BaseRewardError, ConfigError, DataError
from basereward.evaluation.benchmarks import Benchmark
from basereward.evaluation.benchmarks.benchmark import Scored
from basereward.planning.lengths import Overrides
from basereward.planning.meta_model import meta_model
from basereward.planning.plan import plan
from basereward.plugins.plugin_manager import PluginManager
from basereward.training.resolve import resolve_run
from basereward.training.run_directory import is_leftover
from basereward.training.validation import unevaluable_reason

NUM_ROWS = 32
"""Rows of each data set and benchmark that are read, their images opened."""

UTILISATION = (0.25, 0.45)


@dataclass(frozen=True)
class Finding:
    """A part of a run that was looked at.

    Attributes:
        part: The part, such as `data.train.0 rlaif-v`.
        state: The state that it is in.
        problem: The reason why the run would fail; empty where it would not.
    """

    part: str
    state: str
    problem: str = ""


Look: TypeAlias = Callable[[], Finding]


@dataclass
class DryRun:
    """The parts that runs share, each looked at once.

    Args:
        plugins: Where components are looked up.
        gpu: The kind of GPU for the memory plan; None for no plan.
        num_gpus: How many of them.
    """

    plugins: PluginManager
    gpu: Accelerator | None = None
    num_gpus: int = 1
    _seen: dict[str, Finding] = field(default_factory=dict)

    def run(self, config: RunConfig, *, is_new: bool = True, made: Sequence[str] = ()) -> list[Finding]:
        """Return what a run, or one stage of it, would meet.

        Args:
            config: The run.
            is_new: Whether its directory must be empty.
            made: Directories of models that earlier stages leave.
        """
        try:
            config = resolve_run(config, self.plugins)
        except BaseRewardError as error:
            return [Finding("settings", "", str(error))]
        findings = []
        if is_new:
            findings.append(_output(config))
        findings += [self._train(config), self._init(config, made)]
        loss: Any = self.plugins.build("loss", config.loss)
        reads_images, model = self._model(config)
        findings.append(model)
        for number, source in enumerate(config.data.train):
            limit = source.max_bad_share if source.max_bad_share is not None else config.data.max_bad_share
            part = f"data.train.{number} {source.name} {source.options.get('path', '')}"
            findings.append(
                self._data(part, source, limit, loss.untrainable_reason, reads_images, config.data.on_bad_row)
            )
        for number, component in enumerate(config.data.eval):
            part = f"data.eval.{number} {component.name} {component.options.get('path', '')}"
            limit = config.data.max_bad_share
            findings.append(
                self._data(part, component, limit, unevaluable_reason, reads_images, config.data.on_bad_row)
            )
        if not any(finding.problem for finding in findings):
            findings += [self._epoch(config), self._memory(config)]
        return [finding for finding in findings if finding.part]

    def benchmark(self, component: Component, columns: Sequence[str]) -> Finding:
        """Return what a benchmark would meet, and whether it has the metrics of a study's columns."""
        part = f"benchmark {component.name} {component.options.get('path', '')}"

        def look() -> Finding:
            benchmark: Any = self.plugins.build("benchmark", component)
            rows = list(benchmark.comparisons())
            _open_media(rows[:NUM_ROWS])
            if not rows:
                return Finding(part, "", "has no rows that can be read")
            state = f"{len(rows):,} comparisons"
            if isinstance(benchmark, Benchmark):
                lengths = [item.lengths for item in benchmark.items]
                metrics = benchmark.metrics(Scored.of(benchmark.items, lengths))
                for name in columns:
                    if benchmark.without_protocol(name) not in metrics:
                        return Finding(part, state, f"has no metric {name!r}; metrics: {', '.join(metrics)}")
            return Finding(part, state)

        return self._looked(part + str(columns), part, look)

    def _looked(self, key: str, part: str, look: Look) -> Finding:
        if key not in self._seen:
            try:
                finding = look()
            except (BaseRewardError, OSError, ValueError) as error:
                finding = Finding(part, "", str(error))
            self._seen[key] = finding
        return self._seen[key]

    def _train(self, config: RunConfig) -> Finding:
        settings = config.train
        rate = f"lr {settings.lr:g}, batches of {settings.batch_size}, {settings.epochs:g} epochs"
        return Finding("train", rate if settings.max_steps is None else f"{rate}, {settings.max_steps} steps")

    def _init(self, config: RunConfig, made: Sequence[str]) -> Finding:
        if config.init is None:
            return Finding("", "")
        if config.init in made:
            return Finding(f"init {config.init}", "made by the stage before")
        is_there = Path(config.init, "reward_config.json").is_file()
        problem = "" if is_there else "is no model directory: it has no reward_config.json"
        return Finding(f"init {config.init}", "a model directory" if is_there else "", problem)

    def _model(self, config: RunConfig) -> tuple[bool, Finding]:
        """Return whether the backbone reads images, as far as can be known, and where its model is."""
        name = str(config.backbone.options.get("model", ""))
        part = f"model {name}"
        place = "here" if os.path.isdir(name) else "not on this machine; it would be downloaded"
        try:
            model, source = meta_model(config, self.plugins)
        except ConfigError as error:
            return True, Finding(part, f"{place}; sizes not known: {error}")
        parts = model.part_parameters().values()
        parameters = sum(parameter.numel() for part_parameters in parts for parameter in part_parameters)
        unknown = [name for name in config.train.freeze if name not in model.backbone.parts()]
        problem = ""
        if unknown:
            names = ", ".join(model.backbone.parts())
            problem = f"train.freeze names {', '.join(unknown)}, and the parts are {names}"
        reads_images = "vision" in model.backbone.parts()
        return reads_images, Finding(part, f"{place}; {parameters:,} parameters, {source}", problem)

    def _data(
        self,
        part: str,
        component: Component,
        limit: float,
        reason: Callable[[Comparison], DataError | None],
        reads_images: bool,
        on_bad_row: str,
    ) -> Finding:
        def look() -> Finding:
            is_source = isinstance(component, Source)
            dataset = (
                open_source(component, self.plugins)  # type: ignore[arg-type]
                if is_source
                else self.plugins.build("dataset", component)
            )
            rows = list(dataset.probe(NUM_ROWS))
            bad = [row for row in rows if isinstance(row, DataError)]
            good = [row for row in rows if not isinstance(row, DataError)]
            _open_media(good)
            usable = [row for row in good if reason(row) is None]
            asked = [row for row in usable if reads_images or not (row.images or row.videos)]
            state = f"{len(rows)} rows read, {len(bad)} bad, {len(asked)} of use"
            if dataset.unread_splits:
                state += f"; {dataset.unread_splits}"
            problem = ""
            if bad and (on_bad_row == "fail" or len(bad) > limit * len(rows)):
                problem = f"{len(bad)} of {len(rows)} rows can't be used, the first: {bad[0]}"
            elif not asked:
                problem = "no row that was read can be used"
                if usable:
                    problem += ": the model reads texts alone, and all have images"
            return Finding(part, state, problem)

        return self._looked(f"{part} {component} {limit} {reads_images} {on_bad_row}", part, look)

    def _epoch(self, config: RunConfig) -> Finding:
        datasets = [open_source(source, self.plugins) for source in config.data.train]
        try:
            sizes = [dataset.count() for dataset in datasets]
            multimodal = multimodal_sources(config.data, datasets)
            drawn = sum(quotas(sizes, multimodal, config.data.train, config.data.mixture))
        except BaseRewardError as error:
            return Finding("an epoch", "", str(error))
        return Finding("an epoch", f"{drawn:,} of {sum(sizes):,} rows", "" if drawn else "has no rows")

    def _memory(self, config: RunConfig) -> Finding:
        if self.gpu is None:
            return Finding("memory", "not planned; give --gpus and --gpu")
        part = f"memory of {self.num_gpus} x {self.gpu.title}"
        try:
            estimate = plan(
                config,
                self.plugins,
                self.gpu,
                num_gpus=self.num_gpus,
                mfu=UTILISATION,
                overrides=Overrides(),
            )
        except ConfigError as error:
            return Finding(part, f"not planned: {error}")
        except DataError as error:
            return Finding(part, "", str(error))
        state = f"at most {estimate.at_most.total / 1e9:.1f} of {estimate.usable_bytes / 1e9:.1f} GB"
        return Finding(part, state, "" if estimate.fits else "doesn't fit; see `basereward plan`")


def _output(config: RunConfig) -> Finding:
    directory = Path(config.output)
    is_taken = directory.is_dir() and any(not is_leftover(path) for path in directory.iterdir())
    problem = "is not empty; resume the run there with --resume, or replace it with --overwrite"
    return Finding(f"output {config.output}", "" if is_taken else "free", problem if is_taken else "")


def _open_media(rows: Sequence[Comparison]) -> None:
    """Open the images and the first frames of rows.

    Raises:
        DataError: When one is missing or damaged.
    """
    for row in rows:
        for image in (*row.images, *(frame for video in row.videos for frame in video.sampled(2).frames)):
            image.open()
