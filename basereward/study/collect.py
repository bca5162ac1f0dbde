"""Collect the results of a study: the rewards of all runs, on the comparisons that all have scored."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from basereward.comparison import Comparison
from basereward.config.conversion import Component, did_you_mean
from basereward.config.run import RunConfig
from basereward.errors import BaseRewardError, ConfigError
from basereward.evaluation.benchmarks import Benchmark
from basereward.evaluation.benchmarks.benchmark import Scored
from basereward.evaluation.benchmarks.comparisons import order_metrics
from basereward.evaluation.model_comparison import read_results, rewards_of, scored_of
from basereward.evaluation.report import read_verdicts
from basereward.evaluation.results import Result
from basereward.paradigms.verdicts import Verdicts
from basereward.plugins.plugin_manager import PluginManager
from basereward.stats.metric import Metric
from basereward.storage.reading import read_bytes, understood
from basereward.study.offline_ensemble import OfflineEnsemble
from basereward.study.results import Columns, Results, RunResult
from basereward.study.run import benchmarks_of
from basereward.study.spec import HELD_OUT, EnsembleRow, PlannedRun, Study
from basereward.study.worker import (
    DONE_FILE,
    ERROR_FILE,
    REPORT_FILE,
    folder_of,
    is_done,
    is_text,
    read_facts,
)
from basereward.training.data_loader import DataReader
from basereward.training.rejected_rows import RejectedRows
from basereward.training.validation import unevaluable_reason

Key = tuple[str, int]
"""A row's name, and a seed."""

NOTHING_SCORED = "was run to its end and has a reward for no comparison; the reports in its directory say why"
NOTHING_SHARED = (
    "was run to its end, but no comparison was scored by all runs, so that no number can be shown"
)


@dataclass
class Source:
    """The held-out data or a benchmark, with the results of each run on it.

    Attributes:
        name: `held-out`, or the benchmark's label.
        columns: Names of metrics by the titles of their columns.
        component: The benchmark's component; None for the held-out data.
        benchmark: The benchmark; None for the held-out data.
        results: The results of each run and of each ensemble.
        verdicts: The verdicts of each run of a judge.
    """

    name: str
    columns: Mapping[str, str]
    component: Component | None = None
    benchmark: Benchmark | None = None
    results: dict[Key, list[Result]] = field(default_factory=dict)
    verdicts: dict[Key, dict[int, Verdicts]] = field(default_factory=dict)
    _comparisons: list[Comparison] = field(default_factory=list)

    def read(self, key: Key, config: RunConfig) -> None:
        """Take the results of a run, and a judge's verdicts."""
        folder = Path(config.output, folder_of(self.component))
        self.results[key] = read_results(str(folder))
        if verdicts := read_verdicts(folder):
            self.verdicts[key] = verdicts

    def statistics(self, config: RunConfig) -> dict[str, float]:
        """Return the counts of a run's paradigm, such as of verdicts that could not be read."""
        path = Path(config.output, folder_of(self.component), REPORT_FILE)
        statistics = read_facts(path).get("statistics", {})
        with understood(path, ConfigError):
            return dict(statistics)

    def comparisons(self, config: RunConfig, plugins: PluginManager) -> list[Comparison]:
        """Return the comparisons that a run has scored, which are the same for all."""
        if not self._comparisons:
            self._comparisons = self._read(config, plugins)
        return self._comparisons

    def _read(self, config: RunConfig, plugins: PluginManager) -> list[Comparison]:
        if self.benchmark is not None:
            return list(self.benchmark.comparisons())
        with closing(RejectedRows(None, fail=False)) as rejected:
            reader = DataReader(
                config.data.eval,
                split="eval",
                rejection_reason=unevaluable_reason,
                plugins=plugins,
                rejected=rejected,
                progress=lambda dataset, split: dataset,
            )
            reader.set_epoch(0)
            return [comparison for comparisons in reader.read() for comparison in comparisons]

    def is_by_protocol(self, title: str) -> bool:
        """Tell whether a column's metric is by a protocol in print for judges."""
        name = self.columns[title]
        return self.benchmark is not None and self.benchmark.without_protocol(name) != name

    def shared(self, rows: set[str], *, by_protocol: bool) -> tuple[set[int], int]:
        """Return the comparisons that all runs of the rows have scored, and how many any of them has.

        By a protocol for judges, a comparison counts on which a judge's texts hold no verdict.

        Raises:
            ConfigError: When they are not of the same comparisons.
        """
        seen: dict[int, tuple[str, tuple[float, ...]]] = {}
        numbers = []
        for key, results in self.results.items():
            for result in results:
                facts = (result.id, result.ranks)
                if seen.setdefault(result.number, facts) != facts:
                    raise ConfigError(
                        f"cell {key[0]!r} has scored other {self.name} data than the cells before it: its "
                        f"comparison {result.number} is {result.id!r}, theirs {seen[result.number][0]!r}; "
                        "every cell needs the same, with the same ids and ranks"
                    )
            scored = {result.number for result in results}
            if by_protocol:
                scored |= self.verdicts.get(key, {}).keys()
            if key[0] in rows and scored:  # none where a model can't be asked
                numbers.append(scored)
        return (set.intersection(*numbers), len(set.union(*numbers))) if numbers else (set(), 0)

    def metrics(self, key: Key, shared: Container[int]) -> Mapping[str, Metric]:
        """Return the metrics of a run's rewards, and of a judge's verdicts, on the comparisons given."""
        results = [result for result in self.results[key] if result.number in shared]
        if self.benchmark is not None:
            rewards = rewards_of(results, self.benchmark.items)
            if key in self.verdicts:
                verdicts = {number: each for number, each in self.verdicts[key].items() if number in shared}
                return self.benchmark.judge_metrics(rewards, verdicts)
            return self.benchmark.metrics(Scored.of(self.benchmark.items, rewards))
        scored = scored_of(results)
        # Data sets that are held out together have a metric each, too.
        items = [
            replace(item, category=result.source) for item, result in zip(scored.items, results, strict=True)
        ]
        return order_metrics(Scored(items, scored.rewards, scored.ranks))

    def metric(self, title: str, metrics: Mapping[str, Metric], *, is_judge: bool) -> Metric:
        """Return the metric of a column.

        By a protocol for judges, a model with rewards is right where the better response has the larger one.

        Raises:
            ConfigError: When there is no such metric.
        """
        name = self.columns[title]
        if self.benchmark is not None and not is_judge:
            name = self.benchmark.without_protocol(name)
        if name not in metrics:
            hint = did_you_mean(name, metrics) or ";"
            raise ConfigError(
                f"column {title!r}: {self.name} has no metric {name!r}{hint} metrics: {', '.join(metrics)}"
            )
        return metrics[name]


def collect(study: Study, runs: Sequence[PlannedRun], plugins: PluginManager) -> Results:
    """Return the results of the runs that are done, and why the others are not.

    Numbers are of the comparisons that every run with a row of its own has scored, so that all are of the
    same.

    Raises:
        ConfigError: When a column's metric is not measured, or runs were not held against the same data.
    """
    sources = _sources(study, plugins)
    components = tuple(source.component for source in sources if source.component is not None)
    configs = {(run.cell.name, run.seed): run.config for run in runs}
    for source in sources:
        for key, config in configs.items():
            if is_done(config, components):
                source.read(key, config)
    errors: dict[Key, str] = {}
    for row in study.ensembles:
        for seed in study.seeds:
            try:
                _add_ensemble(study, row, seed, configs, sources, plugins)
            except BaseRewardError as error:
                errors[row.label, seed] = str(error)

    columns, values = Columns(), dict[Key, dict[str, float]]()
    rows = {cell.name for cell in study.rows} | {row.label for row in study.ensembles}
    num_left_out = {}
    for source in sources:
        for by_protocol in (False, True):
            titles = [title for title in source.columns if source.is_by_protocol(title) is by_protocol]
            shared, num = source.shared(rows, by_protocol=by_protocol)
            if titles or not by_protocol:
                num_left_out[source.name] = num - len(shared)
            for key, results in source.results.items():
                is_judge = key in source.verdicts
                if key[0] not in rows or not (results or (is_judge and by_protocol)):
                    continue
                if not (titles and shared):
                    continue
                metrics = source.metrics(key, shared)
                for title in titles:
                    metric = source.metric(title, metrics, is_judge=is_judge)
                    values.setdefault(key, {})[title] = columns.add(title, *key, metric)
    for key, by_title in values.items():
        for title, parts in study.averages.items():
            if all(part in by_title for part in parts):
                by_title[title] = columns.average(title, parts, *key)
    return Results(
        _rows(study, configs, sources, values, errors), columns.units, columns.unit_scores, num_left_out
    )


def _sources(study: Study, plugins: PluginManager) -> list[Source]:
    sources = [Source(HELD_OUT, study.held_out)] if study.needs_held_out else []
    for item, component in zip(study.benchmarks, benchmarks_of(study, plugins), strict=True):
        benchmark: Any = plugins.build("benchmark", component)
        if not isinstance(benchmark, Benchmark):
            raise ConfigError(
                f"benchmark {item.name!r} gives a report alone; a study needs the score of each unit, which "
                "a basereward.evaluation.benchmarks.Benchmark has"
            )
        sources.append(Source(item.source, item.columns, component, benchmark))
    return sources


def _add_ensemble(
    study: Study,
    row: EnsembleRow,
    seed: int,
    configs: Mapping[Key, RunConfig],
    sources: Sequence[Source],
    plugins: PluginManager,
) -> None:
    """Add an ensemble's results on all sources but the one that it is fitted on."""
    keys = [(study.cell(labels).name, seed) for labels in row.members]
    for name, _ in keys:
        if any((name, seed) not in source.results for source in sources):
            raise ConfigError(f"its member {name!r} has no results")
    comparisons = {source.name: source.comparisons(configs[keys[0]], plugins) for source in sources}
    reads_images = [
        any(
            not is_text(comparisons[source.name][result.number])
            for source in sources
            for result in source.results[key]
        )
        for key in keys
    ]
    ensembles = {
        source.name: OfflineEnsemble(
            [source.results[key] for key in keys], comparisons[source.name], reads_images
        )
        for source in sources
    }
    ensembler = plugins.build("ensembler", row.ensembler)
    if ensembler.learns:
        assert row.fit is not None  # which is checked before anything is run
        ensembles[row.fit].fit(ensembler)
    # All of them before any is added, so that an error leaves no half-added ensemble.
    results = {name: members.score(ensembler) for name, members in ensembles.items() if name != row.fit}
    for source in sources:
        if source.name in results:
            source.results[row.label, seed] = results[source.name]


def _rows(
    study: Study,
    configs: Mapping[Key, RunConfig],
    sources: Sequence[Source],
    values: Mapping[Key, Mapping[str, float]],
    errors: Mapping[Key, str],
) -> list[RunResult]:
    results = []
    for cell in study.rows:
        for seed in study.seeds:
            key, directory = (cell.name, seed), Path(configs[cell.name, seed].output)
            facts: dict[str, Any] = {}
            error = ""
            scored = [source.results[key] for source in sources if key in source.results]
            if scored:
                facts = read_facts(directory / DONE_FILE)
                counted = {source.name: source.statistics(configs[key]) for source in sources}
                facts["statistics"] = {name: counts for name, counts in counted.items() if counts}
            if not scored:
                error = _why_not(directory)
            elif key not in values:
                error = NOTHING_SHARED if any(scored) else NOTHING_SCORED
            results.append(RunResult(cell.name, cell.labels, seed, values.get(key, {}), facts, error))
    for row in study.ensembles:
        for seed in study.seeds:
            key = (row.label, seed)
            results.append(RunResult(row.label, {}, seed, values.get(key, {}), {}, errors.get(key, "")))
    return results


def _why_not(directory: Path) -> str:
    """Return the last line of a run's error."""
    path = directory / ERROR_FILE
    if not path.is_file():
        return "has not been run to its end"
    with understood(path, ConfigError):
        lines = read_bytes(path).decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "failed"
