"""Simulated judges by each protocol in print, against its plain arithmetic, and by our own."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hub_benchmarks
import numpy as np
import pytest

from basereward.evaluation.benchmarks.judge_protocols import OFFICIAL, R1_REWARD
from basereward.paradigms.verdicts import Verdicts, rewards_of

Build = Callable[..., Any]
ORDERS = ((0, 1), (1, 0))


def simulated(
    items: list[Any], seed: int, *, right: float, unread: float, num_votes: int
) -> dict[int, Verdicts]:
    """Return the verdicts of a judge that is right with one probability, and can't be read with another."""
    chance = random.Random(seed)

    def vote(item: Any, order: tuple[int, int]) -> int | None:
        if chance.random() < unread:
            return None
        is_first_better = item.ranks[order[0]] < item.ranks[order[1]]
        return 1 if is_first_better == (chance.random() < right) else 2

    return {
        number: {order: tuple(vote(item, order) for _ in range(num_votes)) for order in ORDERS}
        for number, item in enumerate(items)
    }


def rewards(items: list[Any], judged: dict[int, Verdicts]) -> list[list[float] | None]:
    """Return the rewards that the paradigm gives for verdicts: shares of votes, averaged over both orders."""
    found: list[list[float] | None] = []
    for number in range(len(items)):
        shares = []
        for order in ORDERS:
            read = [vote for vote in judged[number][order] if vote is not None]
            if read:
                first = read.count(1) / len(read)
                shares.append(first if order == (0, 1) else 1 - first)
        share = sum(shares) / len(shares) if shares else None
        both = rewards_of({(0, 1): share}, 2, "wins")
        found.append(both if np.isfinite(both).all() else None)
    return found


@pytest.fixture(params=["vl-rewardbench", "multimodal-rewardbench", "mm-rlhf-rewardbench"])
def published(request: pytest.FixtureRequest, tmp_path: Path, build: Build) -> Any:
    """Return a benchmark in small."""
    write = {
        "vl-rewardbench": hub_benchmarks.vl_rewardbench,
        "multimodal-rewardbench": hub_benchmarks.multimodal_rewardbench,
        "mm-rlhf-rewardbench": hub_benchmarks.mm_rlhf_rewardbench,
    }[request.param]
    write(tmp_path)
    return build(request.param, tmp_path)


def whole(benchmark: Any) -> str:
    """Return the name of the benchmark's share of right pairs."""
    return {"vl-rewardbench": "overall", "multimodal-rewardbench": "micro"}.get(benchmark.name, "Acc")


@pytest.mark.parametrize("num_votes", [1, 3])
def test_r1_rewards_number_is_of_the_better_response_shown_first(published: Any, num_votes: int) -> None:
    items = published.items
    for seed in range(5):
        judged = simulated(items, seed, right=0.7, unread=0.3, num_votes=num_votes)
        right = 0
        for number, item in enumerate(items):
            order = (0, 1) if item.ranks[0] < item.ranks[1] else (1, 0)
            # "else counted as choosing response 2", which is the worse one.
            votes = [2 if vote is None else vote for vote in judged[number][order]]
            right += votes.count(1) > votes.count(2)
        found = published.report_judge(rewards(items, judged), judged)
        assert found[f"{whole(published)}, {R1_REWARD}"].value == pytest.approx(right / len(items), abs=1e-12)


def test_multimodal_rewardbench_draws_a_verdict_for_what_cant_be_read(tmp_path: Path, build: Build) -> None:
    hub_benchmarks.multimodal_rewardbench(tmp_path)
    benchmark = build("multimodal-rewardbench", tmp_path)
    rows = list(benchmark.comparisons())
    for seed in range(5):
        judged = simulated(benchmark.items, seed, right=0.7, unread=0.4, num_votes=1)
        chance = random.Random(123)
        right = 0
        for number, row in enumerate(rows):
            label = "A" if row.ranks[0] == 0 else "B"  # "B" where Better is Output2
            vote = judged[number][0, 1][0]
            verdict = {1: "A", 2: "B", None: None}[vote] or {1: "A", 2: "B"}[chance.choice((1, 2))]
            right += verdict == label
        found = benchmark.report_judge(rewards(benchmark.items, judged), judged)
        assert found[f"micro, {OFFICIAL}"].value == pytest.approx(right / len(rows), abs=1e-12)


def test_vl_rewardbench_takes_the_majority_and_leaves_out_what_cant_be_read(
    tmp_path: Path, build: Build
) -> None:
    hub_benchmarks.vl_rewardbench(tmp_path)
    benchmark = build("vl-rewardbench", tmp_path)
    items = benchmark.items
    better = [(0, 1) if item.ranks[0] < item.ranks[1] else (1, 0) for item in items]
    # Whatever the order: always right, always wrong, unread in one of three, two of three right, one of two.
    kinds = [(True,) * 3, (False,) * 3, (True, None, True), (True, True, False)]

    def votes(
        kind: tuple[bool | None, ...], order: tuple[int, int], first: tuple[int, int]
    ) -> tuple[Any, ...]:
        return tuple(None if right is None else 1 if right == (order == first) else 2 for right in kind)

    judged = {
        number: {order: votes(kinds[number % 4], order, better[number]) for order in ORDERS}
        for number in range(len(items))
    }
    counted = [number for number in range(len(items)) if number % 4 != 2]
    right = sum(number % 4 in (0, 3) for number in counted)
    found = benchmark.report_judge(rewards(items, judged), judged)
    assert found[f"overall, {OFFICIAL}"].value == pytest.approx(right / len(counted), abs=1e-12)
    assert found[f"overall, {OFFICIAL}"].num == len(counted)
    # As many right as wrong is neither, and counts for nothing.
    half = {
        number: {order: votes((True, False), order, better[number]) for order in ORDERS}
        for number in range(len(items))
    }
    assert f"overall, {OFFICIAL}" not in benchmark.report_judge(rewards(items, half), half)


def test_our_own_number_counts_answers_that_contradict_each_other_half(published: Any) -> None:
    items = published.items
    name = whole(published)
    always_first = {number: {order: (1,) for order in ORDERS} for number in range(len(items))}
    found = published.report_judge(rewards(items, always_first), always_first)
    assert found[name].value == pytest.approx(0.5, abs=1e-12)
    # It always takes the better one where that is shown first, which flatters it.
    assert found[f"{name}, {R1_REWARD}"].value == 1.0
    # Right four times in five in each order: 1 where both orders are right, a half where one is, so 0.8 in
    # all; as wrong, the second would leave 0.64.
    draws = [simulated(items, seed, right=0.8, unread=0.0, num_votes=1) for seed in range(400)]
    mean = np.mean([published.report_judge(rewards(items, judged), judged)[name].value for judged in draws])
    # 400 * 11 comparisons or more of two answers: a deviation of sqrt(0.8 * 0.2 / 8800) = 0.0043.
    assert mean == pytest.approx(0.8, abs=5 * 0.0043)


def test_a_judge_of_whom_nothing_can_be_read_has_the_protocols_numbers_alone(published: Any) -> None:
    items = published.items
    unread = {number: {order: (None,) for order in ORDERS} for number in range(len(items))}
    found = published.report_judge([None] * len(items), unread)
    assert found[f"{whole(published)}, {R1_REWARD}"].value == 0.0
    assert whole(published) not in found
