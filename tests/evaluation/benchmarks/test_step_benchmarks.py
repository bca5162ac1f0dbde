"""VLRMBench and VisualProcessBench: layouts, F1 scores as the official scripts have them, reports."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hub_benchmarks
import pytest
from layouts import values, write_lines

from basereward.evaluation.benchmarks.run import run_benchmark
from basereward.evaluation.benchmarks.step_scores import macro_f1
from basereward.evaluation.model_comparison import differences
from basereward.scoring.baselines import baseline_of


def f1_score(truth: Sequence[int], answers: Sequence[int], label: int) -> float:
    """Return what scikit-learn's `f1_score` with `pos_label` does."""
    found = sum(given == label == true for true, given in zip(truth, answers, strict=True))
    given, there = answers.count(label), truth.count(label)  # type: ignore[attr-defined]
    if not found:
        return 0.0
    precision, recall = found / given, found / there
    return 2 * precision * recall / (precision + recall)


def drawn(benchmark: Any, seed: int) -> list[list[float]]:
    chance = random.Random(seed)
    return [[float(chance.randint(-2, 2)) for _ in item.ranks] for item in benchmark.items]


def test_vlrmbench_weighs_the_rarer_class_more_as_its_script_does(build: Any, tmp_path: Path) -> None:
    hub_benchmarks.vlrmbench(tmp_path)
    benchmark = build("vlrmbench", tmp_path)
    tasks = dict.fromkeys(item.category for item in benchmark.items)
    assert len(tasks) == 8
    for seed in range(10):
        rewards = drawn(benchmark, seed)
        found = values(benchmark, rewards)
        official = {}
        for task in tasks:
            # `get_F1Score` of its `utils.py`: 1 is an error, and pos and neg change places in the weights.
            truth, answers = [], []
            for item, scores in zip(benchmark.items, rewards, strict=True):
                if item.category == task:
                    truth += [int(rank) for rank in item.ranks]
                    answers += [int(reward <= 0) for reward in scores]
            pos, neg = truth.count(1), truth.count(0)
            official[task] = pos / (pos + neg) * f1_score(truth, answers, 0) + neg / (pos + neg) * f1_score(
                truth, answers, 1
            )
            assert found[f"{task}, F1 of wrong steps"] == pytest.approx(f1_score(truth, answers, 1))
        assert found["mean of 8 tasks"] == pytest.approx(sum(official.values()) / 8, abs=1e-12)
        assert {task: found[task] for task in tasks} == pytest.approx(official, abs=1e-12)


def test_visualprocessbench_is_the_macro_f1_without_neutral_steps(build: Any, tmp_path: Path) -> None:
    hub_benchmarks.visualprocessbench(tmp_path)
    benchmark = build("visualprocessbench", tmp_path)
    for seed in range(10):
        rewards = drawn(benchmark, seed)
        truth = [int(rank == 0) for item in benchmark.items for rank in item.ranks]
        answers = [int(reward > 0) for scores in rewards for reward in scores]
        both = (f1_score(truth, answers, 1), f1_score(truth, answers, 0))
        found = values(benchmark, rewards)
        assert found["macro F1"] == pytest.approx(sum(both) / 2, abs=1e-12)
        assert (found["F1 of right steps"], found["F1 of wrong steps"]) == pytest.approx(both, abs=1e-12)


def test_a_neutral_step_is_a_part_of_the_solution_and_no_response(build: Any, tmp_path: Path) -> None:
    row = {
        "image": [],
        "question": "Q",
        "answer": "4",
        "response": {"steps": ["a", "b", "c"], "process_correctness": [1, 0, -1]},
        "policy_model": "m",
        "data_source": "MMMU",
    }
    [comparison] = build("visualprocessbench", write_lines(tmp_path / "test.jsonl", [row]))
    assert comparison.responses == ("a\n\n", "a\n\nb\n\nc")
    assert comparison.ranks == (0, 1)


def test_a_solution_of_vlrmbench_is_cut_where_its_steps_begin(build: Any, tmp_path: Path) -> None:
    text = "STEP1: as in STEP2: of the book.\n\nSTEP2: so\n- a\n\n\nSTEP3: done"
    row = {"id": "1", "image": [], "question": "Q", "reasoning_error": text, "task_gt": [0, 1, 0]}
    [comparison] = build("vlrmbench", write_lines(tmp_path / "detail_error.jsonl", [row]))
    assert comparison.responses == (text[:34], text[:50], text)
    assert comparison.ranks == (0, 1, 0)


def test_a_report_has_what_every_step_right_would_get(build: Any, tmp_path: Path) -> None:
    hub_benchmarks.visualprocessbench(tmp_path)
    benchmark = build("visualprocessbench", tmp_path)
    run = run_benchmark(
        benchmark, {"longest": baseline_of("longest")}, name=benchmark.name, data=str(tmp_path)
    )
    score = run.entries[0].scores["macro F1"]
    truth = [int(rank == 0) for item in benchmark.items for rank in item.ranks]
    share = sum(truth) / len(truth)
    # Of right steps precision is their share and recall 1; no wrong one is found.
    always = share / (1 + share)
    assert score.value == pytest.approx(always)
    # Random rewards: F1 is 2 p / 2 / (p + 1/2) of each class.
    assert score.chance == pytest.approx((share / (share + 0.5) + (1 - share) / (1.5 - share)) / 2)
    assert score.low <= score.value <= score.high
    assert (score.unit, score.num, score.longer_baseline) == ("steps", len(truth), None)
    wrong = (1 - share) / (2 - share)
    assert run.notes[1] == (
        f"Without a model, macro F1: every step right {100 * always:.2f}, every step wrong {100 * wrong:.2f}."
    )
    # Solutions of one step have no pair, and count all the same.
    assert run.entries[0].evaluation.num_comparisons == len(benchmark.items)
    assert run.entries[0].num_unscored == 0


def test_two_models_are_compared_step_by_step(build: Any, tmp_path: Path) -> None:
    from basereward.evaluation.benchmarks import Scored

    hub_benchmarks.visualprocessbench(tmp_path)
    benchmark = build("visualprocessbench", tmp_path)
    perfect = [[1.0 - 2 * rank for rank in item.ranks] for item in benchmark.items]
    random_ones = drawn(benchmark, 0)
    metrics = [
        {"macro F1": macro_f1(Scored.of(benchmark.items, rewards), 0.0)} for rewards in (perfect, random_ones)
    ]
    [difference] = differences(*metrics)
    assert difference.first == 1
    assert difference.value == pytest.approx(1 - metrics[1]["macro F1"].value)
    assert difference.low <= difference.value <= difference.high
    steps = [
        (rank == 0) == (reward > 0)
        for item, scores in zip(benchmark.items, random_ones, strict=True)
        for rank, reward in zip(item.ranks, scores, strict=True)
    ]
    assert (difference.only_first, difference.only_second) == (steps.count(False), 0)
    assert difference.num == len(steps)


def test_tasks_without_labels_a_step_are_counted(build: Any, tmp_path: Path) -> None:
    hub_benchmarks.vlrmbench(tmp_path)
    benchmark = build("vlrmbench", tmp_path)
    others = ("multi_solution", "foresight", "error_reason_analysis", "error_correction")
    listed = ", ".join(f"{task} 2" for task in others)
    assert (
        benchmark.remarks[0] == f"Not supported, since they have no label for each step: 8 rows ({listed})."
    )


def test_the_threshold_is_an_option(build: Any, tmp_path: Path) -> None:
    hub_benchmarks.visualprocessbench(tmp_path)
    benchmark = build("visualprocessbench", tmp_path, threshold=0.5)
    found = values(benchmark, [[1.0 - rank for rank in item.ranks] for item in benchmark.items])
    assert found["macro F1"] == 1
    assert benchmark.ties == "a reward of 0.5 or less says that a step is wrong"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_gt": [0, 2]}, "task_gt[1]: 0 or 1 is needed, not 2"),
        ({"task_gt": [0]}, "reasoning_error: 2 steps have 1 labels"),
        ({"reasoning_error": "So."}, 'reasoning_error: a solution begins with "STEP1:"'),
    ],
)
def test_a_row_that_is_wrong_is_named(
    build: Any, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    row = {"id": "1", "image": [], "question": "Q", "task_gt": [0, 1]}
    row |= {"reasoning_error": "STEP1: a\nSTEP2: b"} | changes
    path = write_lines(tmp_path / "detail_error.jsonl", [row])
    benchmark = build("vlrmbench", path)
    assert list(benchmark) == []
    assert [str(error) for error in benchmark.rejected] == [f"{path}:1: {message}"]
