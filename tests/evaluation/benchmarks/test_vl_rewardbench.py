"""VL-RewardBench: ranks, ids that occur twice, and the three groupings in print."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from layouts import values, write_parquet

IDS = {
    "hallucination_pair-{}": 448,
    "RLAIF-V-{}": 233,
    "RLHF-V-{}": 68,
    "mathverse_{}": 148,
    "mmmu_{}": 145,
    "wildvision-battle-{}": 173,
    "jailbreak_{}": 7,
    "LRVInstruction-{}": 1,
    "politics_{}": 1,
    "svit-{}": 1,
}
"""Beginnings of the ids, and how many different ones there are of each."""


def row(
    name: str, png: bytes, *, ranks: tuple[int, int] = (0, 1), responses: tuple[str, str] = ("aa", "b")
) -> Any:
    return {
        "id": name,
        "query": "What is it?",
        "response": list(responses),
        "image": {"bytes": png, "path": f"{name}.png"},
        "human_ranking": list(ranks),
        "models": ["m", "n"],
        "judge": "human",
        "rationale": "",
        "query_source": "",
    }


@pytest.fixture(scope="module")
def whole(build: Any, png: bytes, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a benchmark with as many ids of each kind as the real one, 25 of them twice."""
    names = [pattern.format(number) for pattern, count in IDS.items() for number in range(count)]
    twice = [f"mathverse_{number}" for number in range(19)] + [f"mmmu_{number}" for number in range(6)]
    rows = [row(name, png) for name in names] + [row(name, png, responses=("cc", "d")) for name in twice]
    root = tmp_path_factory.mktemp("vl")
    write_parquet(root / "data" / "test-00000-of-00001.parquet", rows)
    return build("vl-rewardbench", root)


def test_the_official_groups_have_the_official_sizes(whole: Any) -> None:
    assert len(whole.items) == whole.size == 1250
    assert Counter(item.category for item in whole.items) == {
        "general": 183,
        "hallucination": 749,
        "reasoning": 318,
    }


def test_every_grouping_in_print_has_its_sizes_under_its_own_name(whole: Any) -> None:
    scores = whole.report([(1.0, 0.0)] * 1250)
    assert list(scores)[:2] == ["overall", "macro"]
    groups = ("general", "hallucination", "reasoning")
    assert [scores[name].num for name in groups] == [183, 749, 318]
    assert [scores[f"{name}, R1-Reward's groups"].num for name in groups] == [484, 448, 318]
    assert [scores[f"{name}, UnifiedReward-Think's groups"].num for name in groups] == [631, 301, 318]
    assert (scores["overall"].num, scores["overall, first of each id"].num) == (1250, 1225)


def test_the_numbers_of_r1_rewards_paper_come_out_of_its_counts(whole: Any) -> None:
    # 309 of 484, 384 of 448 and 206 of 318 are right: 899 of 1,250 = 71.92.
    left = {"general": 309, "hallucination": 384, "reasoning": 206}
    rewards = []
    for item in whole.items:
        group = "general" if item.id.startswith("RL") else item.category
        left[group] -= 1
        rewards.append((1.0, 0.0) if left[group] >= 0 else (0.0, 1.0))
    found = values(whole, rewards)
    assert round(100 * found["overall"], 2) == 71.92
    # Printed as 71.44.
    assert 100 * found["macro, R1-Reward's groups"] == pytest.approx(71.4457, abs=1e-4)
    assert round(100 * found["general, R1-Reward's groups"], 2) == 63.84
    assert found["macro"] != pytest.approx(found["macro, R1-Reward's groups"], abs=0.01)


def test_ranks_say_which_response_is_better_and_images_come_from_the_file(
    build: Any, png: bytes, tmp_path: Path
) -> None:
    rows = [row("RLHF-V-1", png), row("svit-1", png, ranks=(1, 0))]
    benchmark = build("vl-rewardbench", write_parquet(tmp_path / "x.parquet", rows))
    first, second = benchmark.comparisons()
    assert (first.ranks, second.ranks) == ((0, 1), (1, 0))
    assert first.images[0].open().size == (4, 4)
    found = values(benchmark, [(1, 0), (1, 0)])
    assert (found["overall"], found["hallucination"], found["general"]) == (0.5, 1, 0)


def test_equal_rewards_are_wrong(build: Any, png: bytes, tmp_path: Path) -> None:
    benchmark = build("vl-rewardbench", write_parquet(tmp_path / "x.parquet", [row("svit-1", png)]))
    assert values(benchmark, [(1, 1)])["overall"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"human_ranking": [0, 0]},
            "human_ranking: ranks of two responses are needed, [0, 1] or [1, 0], not [0, 0]",
        ),
        ({"response": ["a"]}, "response: a list of 2 texts is needed, not one of 1"),
        ({"image": None}, "image: is missing"),
        ({"query": None}, "query: is missing"),
    ],
)
def test_a_row_that_is_wrong_is_named(
    build: Any, png: bytes, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write_parquet(tmp_path / "x.parquet", [row("svit-1", png) | change])
    benchmark = build("vl-rewardbench", path)
    assert list(benchmark) == []
    assert [str(error) for error in benchmark.rejected] == [f"{path}:1: {message}"]
