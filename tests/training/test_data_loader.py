"""Rows of a training: curated and mixed, held or streamed, with nothing lost."""

from __future__ import annotations

import json
import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import runs

from basereward import Comparison, ConfigError, hookimpl, train
from basereward.config import Component, DataConfig, MixtureConfig, Source
from basereward.data import Dataset
from basereward.data.curation import Curation
from basereward.errors import DataError
from basereward.losses import BradleyTerry, Hinge, PlackettLuce, Regression
from basereward.plugins import PluginManager
from basereward.protocols import Loss
from basereward.training.data_loader import (
    DataReader,
    IterableRows,
    MapRows,
    TrainingRows,
    order_of,
)
from basereward.training.rejected_rows import RejectedRows
from basereward.training.resolve import resolve_run

TIED = "ranks: all responses are tied, which teaches this loss nothing"
ALONE = "responses: one response alone teaches this loss nothing; two are needed"
UNRANKED = "ranks: has no ranks or ratings, so nothing can be learnt from it"


def named(num: int, name: str) -> list[dict[str, Any]]:
    return [
        {"id": f"{name}{number}", "prompt": f"{name} {number}", "responses": ["a", "b"], "ranks": [0, 1]}
        for number in range(num)
    ]


Open = Callable[..., TrainingRows]


@pytest.fixture
def open_rows(tmp_path: Path) -> Iterator[Open]:
    """Return a function that opens the training rows of a configuration."""
    plugins = PluginManager()
    with closing(RejectedRows(tmp_path / "rejected.jsonl", fail=False)) as rejected:

        def opened(data: DataConfig, seed: int = 0) -> TrainingRows:
            reader = DataReader(
                data.train,
                plugins,
                split="train",
                rejected=rejected,
                rejection_reason=lambda comparison: None,
                progress=lambda dataset, split: dataset,
                curation=Curation.of(data.curation, plugins),
            )
            kind = IterableRows if data.streaming else MapRows
            return kind(reader, data, seed=seed, shuffle=True)

        yield opened


def ids(rows: TrainingRows, epoch: int) -> list[str]:
    rows.set_epoch(epoch)
    found = list(rows.rows(0))
    assert len(found) == rows.num_rows
    return [row.id for row in found if isinstance(row, Comparison)]


@pytest.mark.parametrize("seed", [0, 1])
def test_streamed_and_held_epochs_have_the_same_rows_in_other_orders(
    open_rows: Open, tmp_path: Path, seed: int
) -> None:
    runs.write_rows(tmp_path / "a.jsonl", named(30, "a"))
    runs.write_rows(tmp_path / "b.jsonl", named(9, "b"))
    sources = (
        Source("basereward", {"path": str(tmp_path / "a.jsonl")}, max_rows=7),
        Source("basereward", {"path": str(tmp_path / "b.jsonl")}, weight=2),
    )
    mixture = MixtureConfig(shuffle_buffer=4)
    held = open_rows(DataConfig(train=sources, mixture=mixture), seed)
    streamed = open_rows(DataConfig(train=sources, mixture=mixture, streaming=True), seed)
    seen: Counter[str] = Counter()
    for epoch in range(5):
        found, expected = ids(streamed, epoch), ids(held, epoch)
        assert sorted(found) == sorted(expected)
        assert found != expected
        counts = Counter(name[0] for name in found)
        assert counts == {"a": 7, "b": 18}
        seen.update(found)
    # Thirty rows, seven at a time: after five epochs each had its turn.
    assert len([name for name in seen if name.startswith("a")]) == 30


def test_rows_that_are_joined_are_counted_as_they_are_read(open_rows: Open, tmp_path: Path) -> None:
    pairs = [("best", "middle"), ("best", "worst"), ("middle", "worst")]
    content = [
        {"id": str(number), "prompt": f"p{number}", "chosen": chosen, "rejected": rejected}
        for number in range(4)
        for chosen, rejected in pairs
    ]
    path = runs.write_rows(tmp_path / "dpo_pairs.jsonl", content)
    data = DataConfig(train=(Source("mm-rlhf", {"path": str(path)}),), streaming=True)
    rows = open_rows(data)
    rows.set_epoch(0)
    # Three pairs make one ranking; were they counted as twelve rows, each would come three times an epoch.
    assert [len(row.responses) for row in rows.rows(0) if isinstance(row, Comparison)] == [3] * 4


def test_a_curated_training_says_what_each_step_did_and_lists_what_it_dropped(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    same = {"prompt": "same", "responses": ["a", "A"], "ranks": [0, 0]}
    content = [*runs.rows(8, seed=1), same]
    path = runs.write_rows(tmp_path / "train.jsonl", content)
    data = DataConfig(
        train=(Source("basereward", {"path": str(path)}, weight=2),),
        curation=(Component("drop-identical"), Component("near-duplicates", {"threshold": 1.0})),
    )
    run = runs.config(tmp_path / "run", tiny_models["llama"], path, data=data)
    result = train(run, progress=False, plots=False)
    assert result.num_steps == 4  # 8 rows twice, 4 a step
    report = json.loads((tmp_path / "run" / "curation.json").read_text())
    assert [(step["step"], step["num_in"], step["num_out"]) for step in report] == [
        ("drop-identical", 9, 8),
        ("near-duplicates", 8, 8),
    ]
    [listed] = (json.loads(line) for line in (tmp_path / "run" / "rejected.jsonl").read_text().splitlines())
    assert (listed["line"], listed["reason"]) == (9, "dropped by drop-identical: all responses identical")


def test_a_streamed_training_needs_no_held_out_data_and_lists_its_bad_rows(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    content = [*runs.rows(9, seed=1), {"prompt": "tied", "responses": ["a", "b"], "ranks": [0, 0]}, {"x": 1}]
    path = runs.write_rows(tmp_path / "train.jsonl", content)
    data = DataConfig(train=(Source("basereward", {"path": str(path)}),), streaming=True)
    result = train(
        runs.config(tmp_path / "run", tiny_models["llama"], path, data=data), progress=False, plots=False
    )
    assert (result.num_steps, result.num_rejected) == (3, 2)  # 11 rows, 4 a step
    assert not (tmp_path / "run" / "curation.json").exists()


def test_steps_that_remember_rows_are_refused_for_streamed_data(open_rows: Open, tmp_path: Path) -> None:
    steps = (Component("drop-empty"), Component("near-duplicates"))
    runs.write_rows(tmp_path / "x", named(2, "a"))
    data = DataConfig(
        train=(Source("basereward", {"path": str(tmp_path / "x")}),), curation=steps, streaming=True
    )
    with pytest.raises(ConfigError) as caught:
        open_rows(data)
    assert str(caught.value) == (
        "data.curation.1: near-duplicates remembers earlier rows, as streamed data can't; write the curated "
        "data once with `basereward data curate`, and stream that"
    )


def test_streamed_data_without_rows_is_an_error(open_rows: Open, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    data = DataConfig(train=(Source("basereward", {"path": str(path)}),), streaming=True)
    with pytest.raises(DataError) as caught:
        open_rows(data).set_epoch(0)
    assert str(caught.value) == "data.train has no rows"


class Weighted(Dataset):
    """A data set with an option that the mixture has too."""

    def __init__(self, *, weight: float = 1.0) -> None:
        self.weight = weight

    def read(self) -> Any:
        """Yield nothing."""
        return iter(())


def test_a_mistyped_key_of_the_mixture_is_named(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    path = runs.write_rows(tmp_path / "x.jsonl", named(2, "a"))
    data = DataConfig(train=(Source("basereward", {"path": str(path), "wieght": 2}),))
    run = runs.config(tmp_path / "run", tiny_models["llama"], path, data=data)
    with pytest.raises(ConfigError) as caught:
        resolve_run(run, PluginManager())
    assert str(caught.value) == "[[data.train]] has no key 'wieght'; did you mean 'weight'?"


def test_an_option_that_the_mixture_has_too_is_refused(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    @hookimpl
    def basereward_datasets() -> dict[str, type]:
        return {"weighted": Weighted}

    module = types.ModuleType("mine")
    module.basereward_datasets = basereward_datasets  # type: ignore[attr-defined]
    data = DataConfig(train=(Source("weighted"),))
    run = runs.config(tmp_path / "run", tiny_models["llama"], tmp_path, data=data)
    with pytest.raises(ConfigError) as caught:
        resolve_run(run, PluginManager([module]))
    assert str(caught.value) == "dataset 'weighted' has an option 'weight', which data.train has too"


def test_orders_differ_by_seed_and_epoch_and_may_be_left_as_they_are() -> None:
    orders = [order_of(epoch, 50, seed=seed, shuffle=True) for epoch in (0, 1) for seed in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert order_of(1, 4, seed=1, shuffle=False) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("loss", "comparison", "reason"),
    [
        (BradleyTerry(), Comparison("p", ["a", "b"], ranks=[0, 1]), None),
        (BradleyTerry(), Comparison("p", ["a", "b"], ranks=[0, 0]), TIED),
        (BradleyTerry(ties="half"), Comparison("p", ["a", "b"], ranks=[0, 0]), None),
        (BradleyTerry(length_normalize=True), Comparison("p", ["a", "b", "c"], ranks=[1, 1, 1]), TIED),
        (Hinge(), Comparison("p", ["a"], ranks=[0]), ALONE),
        (PlackettLuce(), Comparison("p", ["a"], ranks=[0]), ALONE),
        (PlackettLuce(ties="breslow"), Comparison("p", ["a", "b"], ranks=[0, 0]), None),
        (Regression(), Comparison("p", ["a"], ratings=[3.0]), None),
        (Regression(), Comparison("p", ["a"], ranks=[0]), ALONE),
        (Regression(), Comparison("p", ["a"]), UNRANKED),
    ],
)
def test_the_loss_decides_which_comparisons_are_of_no_use(
    loss: Loss, comparison: Comparison, reason: str | None
) -> None:
    error = loss.untrainable_reason(comparison)
    assert (None if error is None else str(error)) == reason
