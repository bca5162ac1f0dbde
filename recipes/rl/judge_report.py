"""Measures, a paired test, a table and curves of a judge before and after reinforcement learning."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from math import comb
from pathlib import Path
from typing import Any

Outcome = Sequence[int | None]
"""What a judge prefers of one pair in each of its orders: 1 for the better response, 0 for the other, None
for an answer in no form."""

CURVES = {
    "reward": "reward of an answer",
    "accuracy": "share of right verdicts",
    "consistency": "position consistency",
    "first": "share that prefers the first",
    "failures": "share of answers in no form",
    "length": "tokens of an answer",
}


def summary(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the measures of a judge's answers to comparisons, each asked in both orders.

    The better response is shown first in a comparison's first question and second in the other.
    """
    answers = [answer for outcome in outcomes for answer in outcome]
    first = [(outcome[0] == 1) + (outcome[1] == 0) for outcome in outcomes]
    return {
        "right": sum(answer == 1 for answer in answers) / len(answers),
        "both_right": sum(list(outcome) == [1, 1] for outcome in outcomes) / len(outcomes),
        "first_preferred": sum(first) / len(answers),
        "position_consistency": statistics.mean(outcome[0] == outcome[1] is not None for outcome in outcomes),
        "parse_failures": sum(answer is None for answer in answers) / len(answers),
    }


def sign_test(before: Sequence[int], after: Sequence[int]) -> dict[str, float]:
    """Return how many pairs of counts rose and fell, and the p-value of the exact two-sided sign test.

    Of counts of 0 and 1 that is McNemar's exact test.
    """
    rose = sum(new > old for old, new in zip(before, after, strict=True))
    fell = sum(new < old for old, new in zip(before, after, strict=True))
    changed = rose + fell
    tail = sum(comb(changed, number) for number in range(min(rose, fell) + 1)) / 2**changed
    return {"rose": rose, "fell": fell, "p": min(1.0, 2 * tail)}


def tests(before: Sequence[Outcome], runs: Sequence[Sequence[Outcome]]) -> list[dict[str, float]]:
    """Return the test of each run's right answers a comparison against those before, and of all together.

    A comparison is the unit, since its two questions depend on each other, and so do the runs' answers to it.
    """
    old = [_right(outcome) for outcome in before]
    new = [[_right(outcome) for outcome in run] for run in runs]
    pooled = [sum(counts) for counts in zip(*new, strict=True)]
    return [
        *(sign_test(old, counts) for counts in new),
        sign_test([len(runs) * count for count in old], pooled),
    ]


def table(results: Mapping[str, Any]) -> str:
    """Return a Markdown table of the judge before and after, a row a seed."""
    lines = [
        "| | right | right in both orders | first preferred | position consistency | parse failures "
        "| comparisons better, worse | p |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        f"| before | {_cells(results['before']['outcomes'])} | | |",
    ]
    runs = results["runs"]
    *each, pooled = tests(results["before"]["outcomes"], [run["outcomes"] for run in runs])
    for run, found in zip(runs, each, strict=True):
        lines.append(f"| after, seed {run['seed']} | {_cells(run['outcomes'])} | {_test(found)} |")
    joined = [outcome for run in runs for outcome in run["outcomes"]]
    lines.append(f"| after, all seeds | {_cells(joined)} | {_test(pooled)} |")
    return "\n".join(lines)


def course_table(results: Mapping[str, Any], num_rows: int = 5) -> str:
    """Return a Markdown table of the training's course: means of all seeds over equal stretches of steps."""
    courses = [run["course"] for run in results["runs"]]
    num = min(map(len, courses))
    lines = [f"| steps | {' | '.join(CURVES.values())} |", "|---" + "|---:" * len(CURVES) + "|"]
    num_rows = min(num_rows, num)
    for row in range(num_rows):
        start, end = row * num // num_rows, (row + 1) * num // num_rows
        steps = [step for course in courses for step in course[start:end]]
        cells = (f"{statistics.mean(step[name] for step in steps):.2f}" for name in CURVES)
        lines.append(f"| {start + 1} to {end} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Draw the course of each seed."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, places = pyplot.subplots(2, 3, figsize=(12, 6))
    for place, (name, title) in zip(places.flat, CURVES.items(), strict=True):
        for run in results["runs"]:
            values = [step[name] for step in run["course"]]
            place.plot(range(1, len(values) + 1), values, label=f"seed {run['seed']}", alpha=0.8)
        place.set_title(title, fontsize=10)
        place.set_xlabel("step")
        if name not in ("reward", "length"):
            place.set_ylim(-0.03, 1.03)
    places.flat[0].legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _right(outcome: Outcome) -> int:
    return sum(answer == 1 for answer in outcome)


def _cells(outcomes: Sequence[Outcome]) -> str:
    return " | ".join(f"{value:.1%}" for value in summary(outcomes).values())


def _test(found: Mapping[str, float]) -> str:
    p = found["p"]
    return f"{found['rose']}, {found['fell']} | {'< 0.0001' if p < 1e-4 else f'{p:.4f}'}"
