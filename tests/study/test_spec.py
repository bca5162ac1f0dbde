"""Study files: what they mean, and what is said of a bad one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import troubled

from basereward.config import RunConfig
from basereward.errors import ConfigError
from basereward.plugins import PluginManager
from basereward.study import Study, load_study, planned_runs

Write = Callable[..., Path]


def test_cells_are_all_choices_but_those_that_are_excluded(tmp_path: Path, write_study: Write) -> None:
    more = """
[axes.activation]
none.head.activation = "none"
silu.head.activation = "silu"

[[exclude]]
layers = ["1"]
activation = "silu"
"""
    path = write_study(tmp_path, more)
    study = load_study(path, ['baseline={ layers = "1", activation = "none" }'])
    assert [cell.name for cell in study.cells] == ["1, none", "2, none", "2, silu"]


def test_a_run_is_the_base_with_the_changes_of_its_cell(tmp_path: Path, write_study: Write) -> None:
    study = load_study(write_study(tmp_path))
    runs = planned_runs(study, PluginManager([troubled]), path="study.toml")
    found = [(run.name, run.config.seed, run.config.head.options["num_layers"]) for run in runs]
    # Seed by seed, so that a study that is not done yet has whole columns of seeds.
    assert found == [("1, seed 0", 0, 1), ("2, seed 0", 0, 2), ("1, seed 1", 1, 1), ("2, seed 1", 1, 2)]
    assert len({run.config.output for run in runs}) == 4
    assert all(Path(run.config.output).parent == tmp_path / "study" / "runs" for run in runs)


def test_a_run_that_is_defined_otherwise_has_another_directory(tmp_path: Path, write_study: Write) -> None:
    path = write_study(tmp_path)
    plugins = PluginManager([troubled])

    def outputs(*overrides: str) -> list[str]:
        study = load_study(path, overrides)
        return [run.config.output for run in planned_runs(study, plugins, path=path)]

    before = outputs()
    assert outputs("title=Other", "run.train.log_every=3") == before  # the course doesn't depend on these
    assert not set(outputs("run.train.lr=0.5")) & set(before)
    # What was the default is the same run when it is written down.
    assert outputs("run.train.weight_decay=0.0") == before


def test_a_change_may_name_a_run_file(tmp_path: Path, write_study: Write) -> None:
    (tmp_path / "wide.toml").write_text("[head]\nname = 'mlp'\nwidth = 7\n", encoding="utf-8")
    path = write_study(tmp_path, '\n[axes.layers.wide]\nbase = "wide.toml"\nhead.num_layers = 3\n')
    run = planned_runs(load_study(path), PluginManager([troubled]), path=path)[2]
    assert (run.cell.name, run.config.head.options["width"]) == ("wide", 7)
    assert run.config.head.options["num_layers"] == 3


def test_the_study_wins_over_a_base_and_the_command_line_over_both(
    tmp_path: Path, write_study: Write
) -> None:
    (tmp_path / "wide.toml").write_text(
        "[head]\nname = 'mlp'\nwidth = 7\n[train]\nlr = 3e-6\nepochs = 5\nweight_decay = 0.5\n",
        encoding="utf-8",
    )
    more = '\n[axes.layers.wide]\nbase = "wide.toml"\nhead.num_layers = 3\ntrain.log_every = 7\n'
    path = write_study(tmp_path, more)  # whose own table `run` sets lr and epochs

    def wide(*settings: str) -> RunConfig:
        runs = planned_runs(load_study(path, settings), PluginManager([troubled]), path=path)
        return next(run.config for run in runs if run.cell.name == "wide")

    train = wide().train
    assert (train.lr, train.epochs, train.weight_decay, train.log_every) == (1e-2, 2, 0.5, 7)
    run = wide(
        "run.train.log_every=9", "run.train.lr=1e-4", "run.head.width=11", "run.data.train.0.weight=2.0"
    )
    assert (run.train.log_every, run.train.lr, run.train.epochs) == (9, 1e-4, 2)
    assert run.head.options["width"] == 11
    assert run.data.train[0].weight == 2.0
    assert run.data.train[0].name == "troubled"
    with pytest.raises(ConfigError, match=r"--set run\.train\.lr\.x=1: run\.train\.lr is a value"):
        wide("run.train.lr.x=1")


BAD = {
    "unknown key": ("\n[titel]\n", "the top level has no key 'titel'; did you mean 'title'? keys: {keys}"),
    "unknown axis": (
        '\n[[exclude]]\nlayer = "1"\n',
        "exclude.0.layer is no axis; did you mean 'layers'? axes: layers",
    ),
    "unknown label": (
        '\n[[exclude]]\nlayers = ["1", "3"]\n',
        "exclude.0.layers is '3', which is no label of it; labels: 1, 2",
    ),
    "excluded baseline": ('\n[[exclude]]\nlayers = "1"\n', "baseline is a cell that is excluded: 1"),
    "missing label": (
        '\n[axes.activation.none]\nhead.activation = "none"\n',
        "baseline needs a label of 'activation'",
    ),
    "empty axis": ("\n[axes.activation]\n", "axes.activation must have at least one change"),
    "no metric": (
        '\n[[benchmarks]]\nname = "vl-rewardbench"\npath = "x"\n',
        'benchmarks.0.columns must name a metric, such as { "VL-RewardBench" = "overall" }',
    ),
    "two benchmarks of a name": (
        '\n[[benchmarks]]\nname = "comparisons"\ncolumns = { a = "x" }\n'
        '\n[[benchmarks]]\nname = "comparisons"\ncolumns = { b = "x" }\n',
        "benchmarks.1 is called 'comparisons', as another is; give it a label of its own",
    ),
    "two columns of a title": (
        '\n[[benchmarks]]\nname = "comparisons"\ncolumns = { "held-out pairs" = "x" }\n',
        "columns must have titles of their own, and two are called 'held-out pairs'",
    ),
    "mean of nothing": (
        '\n[averages]\nall = ["held-out pair"]\n',
        "averages.all is of 'held-out pair', which is no column; did you mean 'held-out pairs'? columns: "
        "held-out pairs",
    ),
    "members": (
        '\n[[ensembles]]\nlabel = "e"\nmembers = []\n',
        "ensembles.0.members must name at least one cell",
    ),
    "fit": (
        '\n[[ensembles]]\nlabel = "e"\nmembers = [{ layers = "1" }]\nfit = "train"\n',
        "ensembles.0.fit must be one of 'held-out', not 'train'",
    ),
}


@pytest.mark.parametrize(("more", "message"), BAD.values(), ids=BAD)
def test_a_bad_study_is_told_by_its_place(
    tmp_path: Path, write_study: Write, more: str, message: str
) -> None:
    path = write_study(tmp_path, more)
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    keys = ", ".join(item.name for item in fields(Study))
    assert str(caught.value) == f"{path}: {message.format(keys=keys) if '{keys}' in message else message}"


def test_seeds_are_different(tmp_path: Path, write_study: Write) -> None:
    path = write_study(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_study(path, ["seeds=[1, 1]"])
    assert str(caught.value) == f"{path}: seeds must be different numbers, at least one, not [1, 1]"


def test_a_bad_run_is_told_by_its_cell(tmp_path: Path, write_study: Write) -> None:
    path = write_study(tmp_path, "\n[axes.layers.3]\nhead.num_layer = 3\n")
    with pytest.raises(ConfigError) as caught:
        planned_runs(load_study(path), PluginManager([troubled]), path=path)
    assert str(caught.value) == (
        f"{path}: cell '3': head 'mlp' has no option 'num_layer'; did you mean 'num_layers'? options: "
        "num_layers, activation, width, dropout, pooling, layer"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            'ensembler = "stacked"',
            'learns from comparisons: say which by fit = "held-out", or by a benchmark\'s name',
        ),
        ('ensembler = "mean"\nfit = "held-out"', "learns nothing; leave out fit"),
    ],
)
def test_an_ensembler_is_fitted_where_it_learns(
    tmp_path: Path, write_study: Write, settings: str, message: str
) -> None:
    path = write_study(
        tmp_path, f'\n[[ensembles]]\nlabel = "e"\nmembers = [{{ layers = "1" }}]\n{settings}\n'
    )
    name = settings.split('"')[1]
    with pytest.raises(ConfigError) as caught:
        planned_runs(load_study(path), PluginManager([troubled]), path=path)
    assert str(caught.value) == f"{path}: ensemble 'e': ensembler {name!r} {message}"


def test_a_missing_or_broken_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    assert str(caught.value) == f"{path}: can't be read: No such file or directory"
    path.write_text("title = ", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    assert str(caught.value) == f"{path}: is not TOML: Invalid value (at end of document)"


def test_a_study_without_held_out_data_is_refused_before_a_run(tmp_path: Path, write_study: Write) -> None:
    path = write_study(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('[[run.data.eval]]\nname = "troubled"\n', ""), encoding="utf-8")
    plugins = PluginManager([troubled])
    with pytest.raises(ConfigError, match=r"cell '1' has no held-out data.*add \[\[run.data.eval\]\]"):
        planned_runs(load_study(path), plugins, path="study.toml")
    assert planned_runs(load_study(path, ["held_out={}"]), plugins, path="study.toml")
