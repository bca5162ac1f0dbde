"""All runs of `policy.py`, one after the other, and what they say together: a table and curves.

Run as `make rl`, or `python recipes/rl/table.py`. Runs that are there already are not repeated.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

from policy import REWARDS, SETTINGS, parser
from scorers import NAMES, trained

from basereward.storage.atomic import write_text

COLUMNS = {
    "rule": "keeps the rule",
    "model": "reward model",
    "judge": "judge",
    "kl": "KL, nats",
    "length": "tokens",
    "ended": "ended",
    "repeated_pairs": "repeated pairs",
    "same_opening": "same opening",
}
CURVES = {
    "rule": "share that keeps the rule",
    "model": "mean reward, reward model",
    "judge": "mean reward, judge",
    "kl": "KL to the untrained policy, nats a token",
    "length": "tokens of an answer",
    "entropy": "entropy, nats a token",
}
COLORS = {"rule": "tab:blue", "model": "tab:red", "hybrid": "tab:green"}
WINDOW = 4


def run_all(models: Path, seeds: Sequence[int], jobs: int, extra: Sequence[str]) -> list[dict[str, Any]]:
    """Return the results of every reward and seed, each made in a process of its own unless it is there."""
    runs = [*product(seeds, REWARDS)]
    for seed, reward in runs:
        check(models / f"{reward}-{seed}" / "result.json", ["--reward", reward, *extra])
    for name in NAMES:
        trained(name, models)

    def run(seed: int, reward: str) -> dict[str, Any]:
        path = models / f"{reward}-{seed}" / "result.json"
        if not path.is_file():
            command = [sys.executable, str(Path(__file__).with_name("policy.py"))]
            command += ["--reward", reward, "--seed", str(seed), "--models", str(models), *extra]
            subprocess.run(command, check=True)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    with ThreadPoolExecutor(jobs) as threads:
        return [*threads.map(run, *zip(*runs, strict=True))]


def check(path: Path, arguments: Sequence[str]) -> None:
    """Refuse the result of an earlier run with other settings than those that are asked for."""
    asked = vars(parser().parse_args(arguments))
    if not path.is_file():
        return
    made = json.loads(path.read_text(encoding="utf-8"))
    other = [name for name in SETTINGS if made.get(name) != asked[name]]
    if other:
        listed = ", ".join(f"{name} {made.get(name)} instead of {asked[name]}" for name in other)
        raise SystemExit(f"{path} was made with {listed}; remove its directory to make it anew")


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table: means over seeds, with the least and the largest."""
    lines = [f"| trained on | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    before = results[0]["before"]
    lines.append(f"| nothing | {' | '.join(_number(before[name]) for name in COLUMNS)} |")
    for reward in REWARDS:
        own = [result["after"] for result in results if result["reward"] == reward]
        cells = [_spread([after[name] for after in own]) for name in COLUMNS]
        lines.append(f"| {reward} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the courses of all runs, smoothed over some steps, and the judge over the reward model."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, places = pyplot.subplots(2, 4, figsize=(16, 7))
    for place, (name, title) in zip(places.flat, CURVES.items(), strict=False):
        for result in results:
            values = _smooth([step[name] for step in result["course"]])
            place.plot(range(1, len(values) + 1), values, color=COLORS[result["reward"]], alpha=0.8)
        place.set_title(title, fontsize=10)
        place.set_xlabel("step")
    divergence, legend = places.flat[len(CURVES) :]
    for result in results:
        model, judge = (_smooth([step[name] for step in result["course"]]) for name in ("model", "judge"))
        divergence.plot(model, judge, color=COLORS[result["reward"]], alpha=0.8)
        divergence.plot(model[-1], judge[-1], "o", color=COLORS[result["reward"]])
    divergence.set_title("judge over reward model; dots are ends", fontsize=10)
    divergence.set_xlabel("reward model")
    for reward, color in COLORS.items():
        legend.plot([], [], color=color, label=f"trained on: {reward}")
    legend.legend(loc="center")
    legend.axis("off")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def _smooth(values: Sequence[float]) -> list[float]:
    return [
        statistics.mean(values[max(0, number - WINDOW + 1) : number + 1]) for number in range(len(values))
    ]


def _spread(values: Sequence[float]) -> str:
    mean = _number(statistics.mean(values))
    return f"{mean} ({_number(min(values))} to {_number(max(values))})" if len(values) > 1 else mean


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def main() -> None:
    """Run what is missing; print the table, draw the curves, write everything as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("runs/rl"), help="where all runs go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/rl.json"))
    parser.add_argument("--plot", type=Path, default=Path("docs/images/rl.png"))
    arguments, extra = parser.parse_known_args()
    results = run_all(arguments.models, arguments.seeds, arguments.jobs, extra)
    facts = {"platform": platform.platform(), "command": " ".join(sys.argv)}
    write_text(arguments.results, json.dumps({"machine": facts, "runs": results}, indent=1) + "\n")
    draw(results, arguments.plot)
    print(table(results))


if __name__ == "__main__":
    main()
