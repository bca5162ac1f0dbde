"""Anybody's own comparisons as a benchmark, and what all benchmarks have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import values, write_lines

from basereward import DataError
from basereward.evaluation import pair_metrics
from basereward.evaluation.benchmarks.published import published_of
from basereward.plugins import PluginManager

NAMES = PluginManager().names("benchmark")


def row(name: str, ranks: list[int], **meta: str) -> dict[str, Any]:
    responses = ["a" * (number + 1) for number in range(len(ranks))]
    return {"id": name, "prompt": "p", "responses": responses, "ranks": ranks, "meta": meta}


def test_pairs_groups_and_categories_of_own_rows(build: Any, tmp_path: Path) -> None:
    rows = [
        row("1", [0, 1, 2], category="x"),
        row("2", [0, 1], category="y", group="g"),
        row("3", [0, 1], category="y", group="g"),
        row("4", [0, 0], category="y"),
    ]
    benchmark = build("comparisons", write_lines(tmp_path / "own.jsonl", rows))
    found = values(benchmark, [(3, 2, 1), (1, 0), (1, 1), (5, 1)])
    # Right are 3, 1 and half a pair of 5; the tie in the data is left out.
    assert found["pair accuracy"] == pytest.approx(4.5 / 5)
    # Of the groups {1} and {2, 3} the first has all pairs right.
    assert found["whole groups"] == 0.5
    assert (found["x"], found["y"]) == (1, 0.75)
    assert found["mean of categories"] == pytest.approx(0.875)
    assert found["pair accuracy, equal rewards wrong"] == pytest.approx(4 / 5)


def test_rows_that_cannot_be_judged_are_left_out(build: Any, tmp_path: Path) -> None:
    rows = [
        row("1", [0, 1], category="x"),
        row("2", [0, 0], category="only ties"),
        row("3", [0, 1]) | {"ranks": None},
        row("4", [0]),
    ]
    benchmark = build("comparisons", write_lines(tmp_path / "own.jsonl", rows))
    scores = benchmark.report([(1, 0), (1, 0), None, None])
    assert {name: score.num for name, score in scores.items() if score.kind != "variant"} == {
        **{"pair accuracy": 1, "x": 1}
    }


def test_trl_rows_are_read_too(build: Any, tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": "a b", "rejected": "a"}]
    benchmark = build("comparisons", write_lines(tmp_path / "own.jsonl", rows))
    assert values(benchmark, [(1, 0)]) == {"pair accuracy": 1, "pair accuracy, equal rewards wrong": 1}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=2, max_size=4).filter(
            lambda responses: len({rank for rank, _ in responses}) > 1
        ),
        min_size=1,
        max_size=8,
    )
)
def test_the_pair_accuracy_is_the_one_of_every_other_evaluation(
    build: Any, tmp_path_factory: pytest.TempPathFactory, rows: list[list[tuple[int, int]]]
) -> None:
    path = tmp_path_factory.mktemp("own") / "own.jsonl"
    write_lines(path, [row(f"{number}", [rank for rank, _ in found]) for number, found in enumerate(rows)])
    benchmark = build("comparisons", path)
    rewards = [[float(reward) for _, reward in found] for found in rows]
    score = benchmark.report(rewards)["pair accuracy"]
    other = pair_metrics(list(benchmark), rewards)
    assert score.value == pytest.approx(other["accuracy"])
    assert (score.low, score.high) == pytest.approx((other["low"], other["high"]))
    assert score.longer_baseline == pytest.approx(other["longer_baseline"])


def test_every_benchmark_is_registered_under_its_own_name() -> None:
    plugins = PluginManager()
    assert len(NAMES) == 12
    for name in NAMES:
        benchmark: Any = plugins.load("benchmark", name)
        assert benchmark.name == name
        assert benchmark.title
        assert benchmark.ties


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_without_the_benchmarks_file_is_an_error_that_names_it(
    build: Any, tmp_path: Path, name: str
) -> None:
    with pytest.raises(DataError) as error:
        build(name, tmp_path)
    cls: Any = PluginManager().load("benchmark", name)
    assert str(error.value) == f"{tmp_path}: no {cls.title} is here: it has no {' or '.join(cls.patterns)}"


def test_two_files_that_may_be_meant_are_an_error(build: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_lines(tmp_path / f"{name}.jsonl", [row("1", [0, 1])])
    with pytest.raises(DataError) as error:
        build("comparisons", tmp_path)
    assert str(error.value) == f"{tmp_path}: holds several files *.jsonl (a.jsonl, b.jsonl); give the one"


@pytest.mark.parametrize("name", NAMES)
def test_published_rows_are_percent_and_each_number_has_a_source(name: str) -> None:
    for published in published_of(name):
        assert published.model
        assert published.source
        assert published.scores
        assert all(0 <= value <= 100 for value in published.scores.values())
        assert set(published.printed) <= set(published.scores)
        for metric, value in published.printed.items():
            assert value != published.scores[metric]


def test_corrected_rows_add_up() -> None:
    rows = {
        row.model: row.scores
        for row in published_of("vl-rewardbench")
        if "macro, R1-Reward's groups" in row.scores
    }
    sizes = {"general": 484, "hallucination": 448, "reasoning": 318}
    for model in ("R1-Reward 7B", "MM-RLHF-Reward 7B", "VITA-1.5 7B", "BaseReward (Qwen2.5-VL)"):
        groups = np.array([rows[model][f"{name}, R1-Reward's groups"] for name in sizes])
        assert groups @ np.array(list(sizes.values())) / 1250 == pytest.approx(
            rows[model]["overall"], abs=0.015
        )
    official = {row.model: row.scores for row in published_of("vl-rewardbench") if "macro" in row.scores}
    assert set(official).isdisjoint(rows)
    [best] = [row for row in published_of("mm-rlhf-rewardbench") if row.printed]
    counts = {"mcq": 42, "long": 37, "short": 34, "safety": 32, "video": 25}
    right = sum(round(best.scores[f"Acc {name}"] * count / 100) for name, count in counts.items())
    assert round(100 * right / 170, 2) == best.scores["Acc"]
    for row in published_of("multimodal-rewardbench"):
        if "macro of 7" in row.scores:
            areas = (
                "correctness",
                "preference",
                "knowledge",
                "reasoning/math",
                "reasoning/coding",
                "safety/bias",
                "VQA",
            )
            assert np.mean([row.scores[area] for area in areas]) == pytest.approx(
                row.scores["macro of 7"], abs=0.1
            )
