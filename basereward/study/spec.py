"""Study files: a base run, axes of changes, seeds, and what is measured; TOML to dataclasses.

A cell is one choice from each axis. Its runs, one a seed, are ordinary runs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from basereward.config.conversion import Component, ValidationError, did_you_mean, from_table
from basereward.config.files import read_toml, run_table
from basereward.config.overrides import deep_merge, set_value
from basereward.config.recipes import PREFIX, located
from basereward.config.run import RunConfig
from basereward.errors import ConfigError

if TYPE_CHECKING:
    from basereward.plugins.plugin_manager import PluginManager

HELD_OUT = "held-out"
"""Name of the held-out data of the runs in a study file."""

BASE, RUN = "base", "run"
"""Keys of a study file: of the run file that a table changes, and of the table of all runs."""

HELD_OUT_COLUMNS = {"held-out pairs": "pair accuracy"}
RUNS = "runs"


@dataclass(frozen=True, slots=True)
class BenchmarkColumns(Component):
    """A benchmark that every run is held against: its name, path and options, and what is shown of it.

    Args:
        columns: The benchmark's metrics by the titles of their columns.
        label: What the study calls it; its name, if it isn't given.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    label: str = ""

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValidationError(
                ("columns",), 'must name a metric, such as { "VL-RewardBench" = "overall" }'
            )

    @property
    def source(self) -> str:
        """The name of the benchmark in the study."""
        return self.label or self.name


@dataclass(frozen=True, kw_only=True)
class EnsembleRow:
    """A row of the table whose rewards are those of several cells, joined; seed by seed.

    Args:
        label: What the row is called.
        members: Cells, by the labels of their axes.
        ensembler: How their rewards are joined.
        fit: What an ensembler that learns learns from: `held-out`, or what one of the benchmarks is called.
            The row has no numbers of these.
    """

    label: str
    members: tuple[Mapping[str, str], ...]
    ensembler: Component = Component("mean")  # noqa: RUF009
    fit: str | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedValues:
    """Numbers in print, to stand beside the study's own.

    Args:
        cell: Whose: a label of each axis, or the label of an ensemble as `ensemble`.
        values: By the titles of columns of their own, in the unit in which they were printed.
    """

    cell: Mapping[str, str]
    values: Mapping[str, float]


@dataclass(frozen=True)
class Cell:
    """One choice from each axis, by the axis's name."""

    labels: Mapping[str, str]

    @property
    def name(self) -> str:
        """The labels, joined."""
        return ", ".join(self.labels.values())

    def is_one_of(self, where: Mapping[str, Any]) -> bool:
        """Tell whether it has one of the labels given for each of some axes."""
        return all(
            self.labels[axis] in ([allowed] if isinstance(allowed, str) else allowed)
            for axis, allowed in where.items()
        )


@dataclass(frozen=True, kw_only=True)
class Study:
    """A grid of runs, and the table that is made of it.

    Args:
        title: Of the table.
        output: Directory of the results.
        runs: Directory of the runs; None for one in `output`. Studies that share it share the runs that they
            have in common.
        run: What all cells have in common: the tables of a run file. Its key `base` may name a run file that
            it changes, relative to the study file; `load_study` puts that file's tables there.
        axes: For each axis its changes by their labels: tables of a run file too, with a `base` of their own
            if they like. What the study itself says wins over every base.
        settings: Settings `KEY=VALUE` of every run, which win over all else.
        exclude: Cells to leave out: labels, or lists of labels, of some axes; all have to match.
        baseline: The cell that all others are tested against.
        seeds: Each cell is run once with each.
        held_out: Metrics of the runs' held-out data, `data.eval`, by the titles of their columns.
        benchmarks: What else the runs' models are held against.
        averages: Columns that are the mean of others, by their titles.
        ensembles: Rows that join cells.
        only_members: Cells that are run for ensembles alone and have no row; as in `exclude`.
        trains: Whether runs are trained. If not, the model directory that each cell names as its `init` is
            evaluated as it is; of the run's settings those of evaluation count, such as its precision.
        keep: Whether a run's model is kept when it is done, or its log and rewards alone.
        launch: The command that starts `basereward` for one training, such as
            `["torchrun", "--nproc-per-node", "8", "-m", "basereward"]`; empty to train within the study's own
            processes.
        published: Numbers in print.
        source: Where they are printed.
        notes: What a reader of the table has to know.
    """

    title: str
    output: str
    runs: str | None = None
    run: Mapping[str, Any]
    axes: Mapping[str, Mapping[str, Mapping[str, Any]]]
    settings: tuple[str, ...] = ()
    exclude: tuple[Mapping[str, str | tuple[str, ...]], ...] = ()
    baseline: Mapping[str, str]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    held_out: Mapping[str, str] = field(default_factory=lambda: HELD_OUT_COLUMNS)
    benchmarks: tuple[BenchmarkColumns, ...] = ()
    averages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ensembles: tuple[EnsembleRow, ...] = ()
    only_members: tuple[Mapping[str, str | tuple[str, ...]], ...] = ()
    trains: bool = True
    keep: Literal["model", "rewards"] = "model"
    launch: tuple[str, ...] = ()
    published: tuple[PublishedValues, ...] = ()
    source: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for axis, changes in self.axes.items():
            if not changes:
                raise ValidationError(("axes", axis), "must have at least one change")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValidationError(
                ("seeds",), f"must be different numbers, at least one, not {list(self.seeds)}"
            )
        for name, wheres in {"exclude": self.exclude, "only_members": self.only_members}.items():
            for number, where in enumerate(wheres):
                self._check_labels(where, (name, str(number)))
        self.cell(self.baseline, ("baseline",))
        if not self.trains and self.needs_held_out:
            reason = "must be {} where trains = false: a model that is not trained has no held-out data"
            raise ValidationError(("held_out",), reason)
        sources = [HELD_OUT, *(benchmark.source for benchmark in self.benchmarks)]
        for number, benchmark in enumerate(self.benchmarks):
            if benchmark.source in sources[: number + 1]:
                reason = f"is called {benchmark.source!r}, as another is; give it a label of its own"
                raise ValidationError(("benchmarks", str(number)), reason)
        for number, row in enumerate(self.ensembles):
            if not row.members:
                raise ValidationError(("ensembles", str(number), "members"), "must name at least one cell")
            for place, labels in enumerate(row.members):
                self.cell(labels, ("ensembles", str(number), "members", str(place)))
            if row.fit is not None and row.fit not in sources:
                reason = f"must be one of {', '.join(map(repr, sources))}, not {row.fit!r}"
                raise ValidationError(("ensembles", str(number), "fit"), reason)
        for number, item in enumerate(self.published):
            self._check_labels(
                {axis: label for axis, label in item.cell.items() if axis != "ensemble"},
                ("published", str(number), "cell"),
            )
        self._check_columns()

    @cached_property
    def cells(self) -> list[Cell]:
        """All cells, the last axis changing fastest."""
        cells = [
            Cell(dict(zip(self.axes, labels, strict=True)))
            for labels in product(*(changes for changes in self.axes.values()))
        ]
        return [cell for cell in cells if not any(map(cell.is_one_of, self.exclude))]

    @property
    def rows(self) -> list[Cell]:
        """The cells that have a row."""
        return [cell for cell in self.cells if not any(map(cell.is_one_of, self.only_members))]

    @property
    def needs_held_out(self) -> bool:
        """Whether a column or an ensemble rests on the runs' held-out data."""
        return bool(self.held_out) or any(row.fit == HELD_OUT for row in self.ensembles)

    @property
    def columns(self) -> list[str]:
        """Titles of all columns but those of published numbers."""
        titles = [*self.held_out, *(title for item in self.benchmarks for title in item.columns)]
        return [*titles, *self.averages]

    def cell(self, labels: Mapping[str, str], path: tuple[str, ...] = ()) -> Cell:
        """Return the cell with these labels.

        Raises:
            ValidationError: When there is none.
        """
        self._check_labels(labels, path)
        if missing := [axis for axis in self.axes if axis not in labels]:
            raise ValidationError(path, f"needs a label of {' and '.join(map(repr, missing))}")
        for cell in self.cells:
            if cell.labels == labels:
                return cell
        raise ValidationError(path, f"is a cell that is excluded: {', '.join(labels.values())}")

    def run_table(self, cell: Cell | None = None) -> dict[str, Any]:
        """Return the tables of a cell's run: the bases', then the study's own, then the settings.

        Args:
            cell: The cell; None for what all cells have in common.

        Raises:
            ConfigError: When a setting can't be set.
        """
        labels = {} if cell is None else cell.labels
        changes = [self.run, *(self.axes[axis][label] for axis, label in labels.items())]
        settings = [{key: value for key, value in change.items() if key != BASE} for change in changes]
        table: dict[str, Any] = reduce(
            deep_merge, [*(change.get(BASE, {}) for change in changes), *settings], {}
        )
        nested = copy.deepcopy({RUN: table})  # `set_value` sets in place
        for setting in self.settings:
            set_value(nested, f"{RUN}.{setting}")
        return nested[RUN]

    def _check_labels(self, where: Mapping[str, Any], path: tuple[str, ...]) -> None:
        for axis, labels in where.items():
            if axis not in self.axes:
                hint = did_you_mean(axis, self.axes) or ";"
                raise ValidationError((*path, axis), f"is no axis{hint} axes: {', '.join(self.axes)}")
            for label in [labels] if isinstance(labels, str) else labels:
                if label not in self.axes[axis]:
                    labels = self.axes[axis]
                    hint = did_you_mean(label, labels) or ";"
                    reason = f"is {label!r}, which is no label of it{hint} labels: {', '.join(labels)}"
                    raise ValidationError((*path, axis), reason)

    def _check_columns(self) -> None:
        titles = self.columns
        for title in titles:
            if titles.count(title) > 1:
                reason = f"must have titles of their own, and two are called {title!r}"
                raise ValidationError(("columns",), reason)
        for title, parts in self.averages.items():
            for part in parts:
                if part not in titles or part in self.averages:
                    columns = [title for title in titles if title not in self.averages]
                    hint = did_you_mean(part, columns) or ";"
                    reason = f"is of {part!r}, which is no column{hint} columns: {', '.join(columns)}"
                    raise ValidationError(("averages", title), reason)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        cell: Whose.
        seed: Which of them.
        config: The run, every option filled in; its output is a directory of its own.
    """

    cell: Cell
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """Name of the run in messages."""
        return f"{self.cell.name}, seed {self.seed}"


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file, and the run file it names.

    Args:
        path: The TOML file, or `recipe:NAME`.
        overrides: Settings `KEY=VALUE` that replace the file's, such as `seeds=[0, 1]`.

    Raises:
        ConfigError: Naming file, table and key.
    """
    path = located(path)
    table = read_toml(path)
    settings = []
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key.startswith(f"{RUN}.") and key != f"{RUN}.{BASE}":
            settings.append(override.strip().removeprefix(f"{RUN}."))
        else:
            set_value(table, override)
    try:
        study: Study = from_table(Study, table)
    except ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error
    directory = path.parent
    axes = {
        axis: {label: _with_base(change, directory) for label, change in changes.items()}
        for axis, changes in study.axes.items()
    }
    run = _with_base(study.run, directory)
    return replace(study, run=run, axes=axes, settings=(*study.settings, *settings))


def _with_base(change: Mapping[str, Any], directory: Path) -> Mapping[str, Any]:
    """Return a change with the tables of the run file that it names as its `base`."""
    if BASE not in change:
        return change
    base = str(change[BASE])
    return {**change, BASE: run_table(base if base.startswith(PREFIX) else directory / base)}


def planned_runs(study: Study, plugins: PluginManager, *, path: str | Path) -> list[PlannedRun]:
    """Return all runs of a study, those of one seed together, so that an unfinished study has whole columns.

    Each has a directory that is named by a digest of all that decides its course: a run that is defined
    otherwise than before is another run.

    Raises:
        ConfigError: Naming the cell whose run is wrong.
        PluginError: When a component is not found.
    """
    from basereward.training.resolve import identity, resolve_run

    for row in study.ensembles:
        plugins.resolve("ensembler", row.ensembler)
        learns = plugins.load("ensembler", row.ensembler.name).learns
        if learns != (row.fit is not None):
            text = 'learns from comparisons: say which by fit = "held-out", or by a benchmark\'s name'
            text = text if learns else "learns nothing; leave out fit"
            raise ConfigError(f"{path}: ensemble {row.label!r}: ensembler {row.ensembler.name!r} {text}")
    planned = []
    for seed in study.seeds:
        for cell in study.cells:
            table = {**study.run_table(cell), "seed": seed, "output": study.output}
            try:
                config = resolve_run(from_table(RunConfig, table), plugins)
            except ConfigError as error:
                raise ConfigError(f"{path}: cell {cell.name!r}: {error}") from error
            if study.needs_held_out and not config.data.eval:
                raise ConfigError(
                    f"{path}: cell {cell.name!r} has no held-out data, on which the study's held-out columns "
                    "are measured; add [[run.data.eval]], or write held_out = {} for a study without them"
                )
            if not study.trains and config.init is None:
                raise ConfigError(
                    f"{path}: cell {cell.name!r} names no model; the study trains none (trains = false), so "
                    'write init = "DIR", a model directory'
                )
            name = identity(config)[:12] + ("" if study.trains else "-as-it-is")
            place = Path(study.runs or Path(study.output, RUNS), name)
            planned.append(PlannedRun(cell, seed, replace(config, output=str(place))))
    return planned
