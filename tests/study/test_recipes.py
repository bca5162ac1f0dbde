"""The studies that come with the package can be read, and name what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from basereward.plugins import PluginManager
from basereward.study import load_study, planned_runs

STUDIES = [
    path
    for path in sorted((Path(__file__).parents[2] / "recipes" / "studies").glob("*.toml"))
    if "[axes" in path.read_text(encoding="utf-8")
]


def test_every_table_and_figure_of_the_paper_has_a_study() -> None:
    names = {path.stem for path in STUDIES}
    assert {"table-1", "table-2", "table-4", "table-5", "table-6", "table-7", "figure-1", "figure-2"} <= names


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_names_components_and_options_that_exist(path: Path) -> None:
    study = load_study(path)
    plugins = PluginManager(discover=True)
    runs = planned_runs(study, plugins, path=path)
    assert len(runs) == len(study.cells) * len(study.seeds)
    # Two cells of one study that are the same run would be compared with themselves.
    assert len({run.config.output for run in runs}) == len(runs)
    for benchmark in study.benchmarks:
        plugins.load("benchmark", benchmark.name)


def test_the_small_heads_are_twenty() -> None:
    [path] = [path for path in STUDIES if path.stem == "small-heads"]
    study = load_study(path)
    assert (len(study.cells), len(study.seeds)) == (20, 5)


def test_tables_share_the_runs_they_have_in_common() -> None:
    plugins = PluginManager(discover=True)

    def runs(name: str) -> set[str]:
        [path] = [path for path in STUDIES if path.stem == name]
        return {run.config.output for run in planned_runs(load_study(path), plugins, path=path)}

    default = runs("table-1") & runs("table-2") & runs("figure-1") & runs("table-4") & runs("table-6")
    assert len(default) == 3  # the paper's default, three seeds
    assert runs("table-5") < runs("table-4")


@pytest.mark.parametrize("name", ["table-1", "table-2", "table-4", "table-5", "table-6", "table-7"])
def test_printed_numbers_are_of_columns_of_their_kind(name: str) -> None:
    [path] = [path for path in STUDIES if path.stem == name]
    study = load_study(path)
    assert study.published
    for row in study.published:
        assert set(row.values) <= set(study.columns)
        for title, parts in study.averages.items():
            if title in row.values and set(parts) <= set(row.values):
                mean = sum(row.values[part] for part in parts) / len(parts)
                # Both the mean and its parts are rounded to one decimal.
                assert row.values[title] == pytest.approx(mean, abs=0.1 + 1e-9), row.cell
