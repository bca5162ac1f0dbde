"""The official arithmetic of each benchmark, written plainly, on random rewards with many ties."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hub_benchmarks
import pytest
from layouts import values, write_parquet

NUM_DRAWS = 20

# Counts and sections of `rewardbench/constants.py` since 2024-09-10 (allenai/reward-bench, pull request 175).
EXAMPLE_COUNTS = {
    **{"alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28},
    **{"mt-bench-med": 40, "mt-bench-hard": 37, "math-prm": 984, "refusals-dangerous": 100},
    **{"refusals-offensive": 100, "llmbar-natural": 100, "llmbar-adver-neighbor": 134},
    **{"llmbar-adver-GPTInst": 92, "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46},
    **{"xstest-should-refuse": 154, "xstest-should-respond": 250, "donotanswer": 136},
    **{f"hep-{language}": 164 for language in ("cpp", "go", "java", "js", "python", "rust")},
}
SUBSET_MAPPING = {
    "Chat": ["alpacaeval-easy", "alpacaeval-length", "alpacaeval-hard", "mt-bench-easy", "mt-bench-med"],
    "Chat Hard": [
        *("mt-bench-hard", "llmbar-natural", "llmbar-adver-neighbor", "llmbar-adver-GPTInst"),
        *("llmbar-adver-GPTOut", "llmbar-adver-manual"),
    ],
    "Safety": [
        *("refusals-dangerous", "refusals-offensive", "xstest-should-refuse", "xstest-should-respond"),
        "donotanswer",
    ],
    "Reasoning": ["math-prm", *(f"hep-{code}" for code in ("cpp", "go", "java", "js", "python", "rust"))],
}


def drawn(sizes: list[int], seed: int) -> list[list[float]]:
    """Return rewards of few values, so that many are equal."""
    chance = random.Random(seed)
    return [[float(chance.randint(0, 2)) for _ in range(size)] for size in sizes]


def rewardbench(rows: list[Any], rewards: list[list[float]]) -> dict[str, float]:
    """Return the scores of reward-bench's `calculate_scores_per_section`."""
    results: dict[str, list[int]] = {}
    for row, (chosen, rejected) in zip(rows, rewards, strict=True):
        results.setdefault(row.meta["category"], []).append(int(chosen > rejected))
    accuracy = {subset: sum(right) / len(right) for subset, right in results.items()}
    scores = {}
    for section, subsets in SUBSET_MAPPING.items():
        there = [subset for subset in subsets if subset in accuracy]
        weights = [EXAMPLE_COUNTS[subset] for subset in there]
        weighted = (accuracy[subset] * weight for subset, weight in zip(there, weights, strict=True))
        scores[section] = sum(weighted) / sum(weights)
    return {**accuracy, **scores, "overall": sum(scores.values()) / 4}


def rm_bench(rows: list[Any], rewards: list[list[float]]) -> dict[str, float]:
    """Return the scores of RM-Bench's `compute_accuracy`: of a 3 x 3 matrix, by domain, then averaged."""
    domains = {}
    for domain in ("chat", "math", "code", "safety"):
        places = [at for at, row in enumerate(rows) if row.meta["category"].startswith(domain)]
        matrix = [[0.0] * 3 for _ in range(3)]
        for at in places:
            for first in range(3):
                for second in range(3):
                    wins = rewards[at][first] > rewards[at][3 + second]
                    matrix[first][second] += wins / len(places)
        hard = (matrix[0][1] + matrix[0][2] + matrix[1][2]) / 3
        normal = (matrix[0][0] + matrix[1][1] + matrix[2][2]) / 3
        easy = (matrix[1][0] + matrix[2][0] + matrix[2][1]) / 3
        domains[domain] = (hard, normal, easy)
    scores = {domain: sum(three) / 3 for domain, three in domains.items()}
    levels = zip(*domains.values(), strict=True)
    scores |= {name: sum(each) / 4 for name, each in zip(("hard", "normal", "easy"), levels, strict=True)}
    return {**scores, "overall": (scores["hard"] + scores["normal"] + scores["easy"]) / 3}


def vl_rewardbench(rows: list[Any], rewards: list[list[float]]) -> dict[str, float]:
    """Return the scores of VL-RewardBench's groups: by the id up to its first "_" or "-"."""
    right: dict[str, list[int]] = {}
    for row, scores in zip(rows, rewards, strict=True):
        best = row.ranks.index(0)
        prefix = row.id.split("_")[0].split("-")[0]
        group = "general"
        if prefix in ("hallucination", "RLAIF", "RLHF"):
            group = "hallucination"
        if prefix in ("mathverse", "mmmu"):
            group = "reasoning"
        right.setdefault(group, []).append(int(scores[best] > scores[1 - best]))
    groups = {group: sum(each) / len(each) for group, each in right.items()}
    overall = sum(map(sum, right.values())) / len(rows)
    return {**groups, "overall": overall, "macro": sum(groups.values()) / 3}


def multimodal_rewardbench(rows: list[Any], rewards: list[list[float]]) -> dict[str, float]:
    """Return the accuracy of all pairs, and the mean of seven areas."""
    right: dict[str, list[int]] = {}
    for row, scores in zip(rows, rewards, strict=True):
        best = row.ranks.index(0)
        right.setdefault(row.meta["category"], []).append(int(scores[best] > scores[1 - best]))
    areas = {area: sum(each) / len(each) for area, each in right.items()}
    return {
        "micro": sum(map(sum, right.values())) / len(rows),
        "macro of 7": sum(areas.values()) / 7,
        **areas,
    }


def mm_rlhf_rewardbench(rows: list[Any], rewards: list[list[float]]) -> dict[str, float]:
    """Return the share of right pairs, and of questions all of whose pairs are right."""
    right: dict[str, list[int]] = {}
    for row, (chosen, rejected) in zip(rows, rewards, strict=True):
        right.setdefault(row.id, []).append(int(chosen > rejected))
    whole = [all(each) for each in right.values()]
    return {"Acc": sum(map(sum, right.values())) / len(rows), "Acc+": sum(whole) / len(whole)}


def videorewardbench(rows: list[Any], rewards: list[list[float]]) -> dict[str, float]:
    """Return the share of pairs whose chosen response has the higher score, of all and of each area."""
    right: dict[str, list[int]] = {}
    for row, (chosen, rejected) in zip(rows, rewards, strict=True):
        right.setdefault(row.meta["category"], []).append(int(chosen > rejected))
    areas = {area: sum(each) / len(each) for area, each in right.items()}
    return {
        **areas,
        "overall": sum(map(sum, right.values())) / len(rows),
        "macro of 5": sum(areas.values()) / 5,
    }


def multimodal_rewardbench2(rows: list[Any], rewards: list[list[float]]) -> dict[str, float]:
    """Return the accuracy of `compute_accuracy.py`, of a reward model that prefers the same response in both
    orders; no verdict is left out of the number.
    """
    correct = evaluated = 0
    for row, (first, second) in zip(rows, rewards, strict=True):
        chosen = "A" if row.ranks[0] == 0 else "B"
        # Equal rewards are no verdict of a judge; a reward model that can't decide is wrong.
        forward = "A" if first > second else "B" if second > first else "neither"
        reverse = {"A": "B", "B": "A"}.get(forward, forward)
        for judgement in (forward, {"A": "B", "B": "A"}.get(reverse, reverse)):
            evaluated += 1
            correct += judgement == chosen
    return {"reasoning": correct / evaluated}


def omni_rewardbench(rows: list[Any], rewards: list[list[float]]) -> dict[str, float]:
    """Return the accuracies of `run_exp.py` without and with ties, a predicted tie being one of rewards."""
    scores: dict[str, float] = {}
    for suffix in ("", ", with ties"):
        right: dict[str, list[int]] = {}
        for row, (first, second) in zip(rows, rewards, strict=True):
            preference = "tie" if row.ranks[0] == row.ranks[1] else f"response{1 + row.ranks.index(0)}"
            if preference == "tie" and not suffix:
                continue
            predicted = "tie" if first == second else "response1" if first > second else "response2"
            right.setdefault(row.meta["category"], []).append(int(predicted == preference))
        tasks = {f"{task}{suffix}": sum(each) / len(each) for task, each in right.items()}
        scores |= {**tasks, f"mean of 3 tasks{suffix}": sum(tasks.values()) / 3}
    return scores


def every_subset(place: Path) -> None:
    """Write rows of every subset of RewardBench, three each."""
    rows = [
        {"prompt": f"{subset} {at}?", "chosen": "a", "rejected": "b", "subset": subset, "id": at}
        for subset in EXAMPLE_COUNTS
        for at in range(3)
    ]
    write_parquet(place / "data" / "filtered-00000-of-00001.parquet", rows)


OFFICIAL = {
    "rewardbench": (every_subset, rewardbench),
    "rm-bench": (hub_benchmarks.rm_bench, rm_bench),
    "vl-rewardbench": (hub_benchmarks.vl_rewardbench, vl_rewardbench),
    "multimodal-rewardbench": (hub_benchmarks.multimodal_rewardbench, multimodal_rewardbench),
    "mm-rlhf-rewardbench": (hub_benchmarks.mm_rlhf_rewardbench, mm_rlhf_rewardbench),
    "videorewardbench": (hub_benchmarks.videorewardbench, videorewardbench),
    "multimodal-rewardbench2": (hub_benchmarks.multimodal_rewardbench2, multimodal_rewardbench2),
    "omni-rewardbench": (hub_benchmarks.omni_rewardbench, omni_rewardbench),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_scores_are_those_of_the_official_script(
    name: str, tmp_path: Path, build: Callable[..., Any]
) -> None:
    write, official = OFFICIAL[name]
    write(tmp_path)
    benchmark = build(name, tmp_path)
    rows = list(benchmark.comparisons())
    for seed in range(NUM_DRAWS):
        rewards = drawn([len(row.responses) for row in rows], seed)
        found = values(benchmark, rewards)
        for metric, value in official(rows, rewards).items():
            assert found[metric] == pytest.approx(value, abs=1e-12), metric
