"""Look at all that a run needs before it is started: settings, model, first rows, benchmarks, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from basereward.backbones.transformers_model import without_weights
from basereward.comparison import Comparison
from basereward.config.conversion import Component
from basereward.config.run import RunConfig, Source
from basereward.costs.accelerators import Accelerator
from basereward.data.curation import Curation
from basereward.data.mixing import multimodal_sources
from basereward.data.mixture import quotas
from basereward.data.ranking_pairs import open_source
from basereward.data.wrong_images import check_ties_are_learned
from basereward.errors import BaseRewardError, ConfigError, DataError
from basereward.evaluation.benchmarks import Benchmark
from basereward.evaluation.benchmarks.benchmark import Scored
from basereward.planning.lengths import Overrides
from basereward.planning.meta_model import meta_model
from basereward.planning.plan import plan
from basereward.planning.preparation import (
    PreparedRows,
    is_here,
    model_without_weights,
    open_rows,
    prepare_rows,
)
from basereward.plugins.plugin_manager import PluginManager
from basereward.scoring.component_record import saved_component
from basereward.scoring.reward_model import RewardModel
from basereward.storage import model_directory
from basereward.storage.model_directory import CONFIG_FILE, KINDS
from basereward.training.data_loader import check_streamable
from basereward.training.lora import Adapters
from basereward.training.model_selection import ModelSelector
from basereward.training.parameter_groups import check_quantized, trainable_parts
from basereward.training.resolve import resolve_run
from basereward.training.run_directory import is_taken
from basereward.training.validation import unevaluable_reason

NUM_ROWS = 32
"""Rows of each data set that are read and prepared; comparisons of a benchmark whose images are opened."""

NUM_ASKED = 8
"""Comparisons of each benchmark that are prepared for each model, or a few more."""

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


@dataclass(frozen=True)
class _Model:
    """A run's model.

    Attributes:
        key: Tells models apart.
        rows_key: Tells models apart that prepare rows in different ways.
        reads_images: Whether it reads images; True where that isn't known.
        reward_model: The model without weights; None where its files are not on this machine.
    """

    key: str
    rows_key: str = ""
    reads_images: bool = True
    reward_model: RewardModel | None = None

    def prepared(self, rows: Sequence[Comparison], *, is_training: bool) -> PreparedRows:
        """Prepare rows, as far as that can be done here."""
        if self.reward_model is None:
            return open_rows(rows)
        return prepare_rows(self.reward_model, rows, is_training=is_training)


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
    _latest: tuple[_Model, Finding] | None = None

    def run(
        self,
        config: RunConfig,
        *,
        is_new: bool = True,
        made: Sequence[str] = (),
        benchmarks: Sequence[Component] = (),
    ) -> list[Finding]:
        """Return what a run, or one stage of it, would meet.

        Args:
            config: The run.
            is_new: Whether its directory must be empty.
            made: Directories of models that earlier stages leave.
            benchmarks: The benchmarks that its model is to be evaluated on.
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
        try:
            check_ties_are_learned(config.data.train, loss)
        except BaseRewardError as error:
            findings.append(Finding("settings", "", str(error)))
        model, finding = self._model(config, made)
        findings.append(finding)
        for number, source in enumerate(config.data.train):
            limit = source.max_bad_share if source.max_bad_share is not None else config.data.max_bad_share
            part = f"data.train.{number} {source.name} {source.options.get('path', '')}"
            findings.append(
                self._data(part, source, limit, loss.untrainable_reason, model, config.data.on_bad_row)
            )
        for number, component in enumerate(config.data.eval):
            part = f"data.eval.{number} {component.name} {component.options.get('path', '')}"
            limit = config.data.max_bad_share
            findings.append(
                self._data(part, component, limit, unevaluable_reason, model, config.data.on_bad_row)
            )
        findings += [self._asked(component, model) for component in benchmarks]
        if not any(finding.problem for finding in findings):
            findings += [self._epoch(config), self._memory(config)]
        return [finding for finding in findings if finding.part]

    def evaluation(self, config: RunConfig, benchmarks: Sequence[Component]) -> list[Finding]:
        """Return what the evaluation of a run's `init`, as it is, would meet."""
        init = self._init(config, ())
        if init.problem:
            return [init]
        directory = str(config.init)
        try:
            saved = model_directory.read(Path(directory), verify=False)["components"]
            components = {kind: saved_component(self.plugins, kind, saved[kind]) for kind in KINDS}
            with without_weights():
                whole = RewardModel.warm_start(directory, **components, plugins=self.plugins, verify=False)
        except (BaseRewardError, OSError) as error:
            return [replace(init, problem=str(error))]
        model = _Model(directory, directory, "vision" in whole.backbone.parts(), whole)
        counted = replace(init, state=f"a model directory; {_count(whole):,} parameters")
        return [counted, *(self._asked(component, model) for component in benchmarks)]

    def benchmark(self, component: Component, columns: Sequence[str]) -> Finding:
        """Return what a benchmark would meet, and whether it has the metrics of a study's columns."""
        part = f"benchmark {component.name} {component.options.get('path', '')}"

        def look() -> Finding:
            benchmark: Any = self.plugins.build("benchmark", component)
            rows = list(benchmark.comparisons())
            if refused := open_rows(rows[:NUM_ROWS]).refused:
                return Finding(part, f"{len(rows):,} comparisons", str(refused[0]))
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
        state = f"lr {settings.peak_lr:g}, batches of {settings.batch_size}, {settings.epochs:g} epochs"
        if settings.max_steps is not None:
            state += f", {settings.max_steps} steps"
        try:
            ModelSelector(settings)
            curation = Curation.of(config.data.curation, self.plugins)
            if config.data.streaming:
                check_streamable(curation)
        except (BaseRewardError, OSError) as error:
            return Finding("train", state, str(error))
        return Finding("train", state)

    def _init(self, config: RunConfig, made: Sequence[str]) -> Finding:
        if config.init is None:
            return Finding("", "")
        if config.init in made:
            return Finding(f"init {config.init}", "made by the stage before")
        is_there = _is_model(config.init)
        problem = "" if is_there else "is no model directory: it has no reward_config.json"
        return Finding(f"init {config.init}", "a model directory" if is_there else "", problem)

    def _model(self, config: RunConfig, made: Sequence[str]) -> tuple[_Model, Finding]:
        """Return the model, as far as it can be made here, and whether it can be made at all."""
        if config.init is not None and (config.init in made or not _is_model(config.init)):
            config = replace(config, init=None, fresh_head=True)
        kinds = (config.backbone, config.head, config.loss, config.paradigm)
        rows_key = str((config.backbone, config.paradigm, config.init))
        trained = (config.train.freeze, config.train.lora, config.train.lr_parts, config.train.optimizer)
        key = str((kinds, config.init, config.fresh_head, trained))
        if self._latest is None or self._latest[0].key != key:
            try:
                self._latest = self._made(config, _Model(key, rows_key))
            except (BaseRewardError, OSError) as error:
                part = f"model {config.backbone.options.get('model', '')}"
                self._latest = (_Model(key, rows_key), Finding(part, "", str(error)))
        return self._latest

    def _made(self, config: RunConfig, unmade: _Model) -> tuple[_Model, Finding]:
        name = str(config.backbone.options.get("model", ""))
        part = f"model {name}"
        if is_here(config):
            whole = model_without_weights(config, self.plugins)
            made = replace(unmade, reads_images="vision" in whole.backbone.parts(), reward_model=whole)
            return made, Finding(part, f"here; {_count(whole):,} parameters")
        place = "not on this machine; it would be downloaded, and no row is tokenized here"
        try:
            sized, source = meta_model(config, self.plugins)
        except ConfigError as error:
            return unmade, Finding(part, f"{place}; sizes not known: {error}")
        check_quantized(config)
        Adapters(sized.backbone, config.train, "")
        parameters = _count(sized)
        trainable_parts(sized.part_parameters(), config.train)
        made = replace(unmade, reads_images="vision" in sized.backbone.parts())
        return made, Finding(part, f"{place}; {parameters:,} parameters, {source}")

    def _data(
        self,
        part: str,
        component: Component,
        limit: float,
        reason: Callable[[Comparison], DataError | None],
        model: _Model,
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
            usable = [row for row in rows if not isinstance(row, DataError) and reason(row) is None]
            asked = [row for row in usable if model.reads_images or not (row.images or row.videos)]
            prepared = model.prepared(asked, is_training=is_source)
            lost = [*bad, *prepared.refused]
            num_used = len(asked) - len(prepared.refused)
            state = f"{len(rows)} rows read, {len(lost)} bad, {num_used} of use"
            if str(prepared):
                state += f"; {prepared}"
            if dataset.unread_splits:
                state += f"; {dataset.unread_splits}"
            problem = ""
            if lost and (on_bad_row == "fail" or len(lost) > limit * len(rows)):
                problem = f"{len(lost)} of {len(rows)} rows can't be used, the first: {lost[0]}"
            elif not num_used:
                problem = "no row that was read can be used"
                if usable and not asked:
                    problem += ": the model reads texts alone, and all have images"
            return Finding(part, state, problem)

        return self._looked(
            f"{part} {component} {limit} {model.rows_key} {model.reads_images} {on_bad_row}", part, look
        )

    def _asked(self, component: Component, model: _Model) -> Finding:
        """Return whether a model can be asked about a benchmark's first comparisons."""
        part = f"benchmark {component.name}, asked of the model"

        def look() -> Finding:
            benchmark: Any = self.plugins.build("benchmark", component)
            every = list(benchmark.comparisons())
            rows = [row for row in every if model.reads_images or not (row.images or row.videos)]
            if every and not rows:
                return Finding(part, "none: the model reads texts alone, and all have images")
            rows = rows[:: max(1, len(rows) // NUM_ASKED)]  # evenly, since videos may come last
            prepared = model.prepared(rows, is_training=False)
            if prepared.refused:
                problem = f"{len(prepared.refused)} of {len(rows)} comparisons can't be scored, the first: "
                return Finding(part, str(prepared), problem + str(prepared.refused[0]))
            return Finding(part, str(prepared) or f"{len(rows)} comparisons can be read")

        return self._looked(f"{part} {component} {model.rows_key}", part, look)

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
    has_run = directory.is_dir() and is_taken(directory)
    problem = "is not empty; resume the run there with --resume, or replace it with --overwrite"
    return Finding(f"output {config.output}", "" if has_run else "free", problem if has_run else "")


def _is_model(directory: str) -> bool:
    return Path(directory, CONFIG_FILE).is_file()


def _count(model: RewardModel) -> int:
    """Return the number of a model's parameters."""
    return sum(item.numel() for items in model.part_parameters().values() for item in items)
