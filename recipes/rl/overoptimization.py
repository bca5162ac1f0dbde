"""How far a small policy can push a reward model: best of n, and the kept runs of `table.py`.

Run as `python recipes/rl/overoptimization.py`. An untrained policy answers 40 unseen prompts 64 times each.
Of n answers a reward model chooses the best; what that is worth say the judge, and the rule, which no reward
model knows: for models of several seeds and for their ensemble. What is there already is not made again.
`--draw` only draws and prints what is kept.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from policy import answers
from policy_task import JUDGED, every_unseen, keeps_rule
from scorers import trained
from smollm2 import save_policy

from basereward import Comparison, load_model, read_comparisons
from basereward.data.writing import open_writer
from basereward.evaluation.overoptimization import MODEL, GivenRatings, overoptimization
from basereward.evaluation.overoptimization_report import curve_notes, save_overoptimization
from basereward.integrations.judge_grpo import load_policy
from basereward.protocols import Scorer
from basereward.scoring.scorer import EnsembleRewards
from basereward.storage.atomic import write_text

PROXIES = {"reward_few": "1,000 texts", "reward": "4,000 texts"}
"""How much a reward model was trained on, by its run file."""

SPARE = 4
"""Answers drawn beyond those that are kept, in the place of empty ones."""

WINDOW = 4
"""Steps of a run that are averaged, 32 answers each."""


class Scored(Scorer[list[float]]):
    """Gives rewards that are known, by a comparison's id."""

    def __init__(self, rewards: Mapping[str, list[float]]) -> None:
        self.rewards = rewards

    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8
    ) -> Iterator[tuple[Comparison, list[float]]]:
        """Yield each comparison with its rewards, in order."""
        for comparison in comparisons:
            yield comparison, self.rewards[comparison.id or ""]


def samples(models: Path, num_prompts: int, num: int) -> list[Comparison]:
    """Return a comparison of `num` answers of the untrained policy for each prompt, rated by the rule.

    Reward models see the answers alone, under the prompt of their training, as in the runs of `policy.py`.
    """
    asked = every_unseen()[:num_prompts]
    path = models / f"samples-{num_prompts}-{num}.jsonl"
    if not path.is_file():
        policy, tokenizer = load_policy(save_policy(models / "smollm2"), dtype="bfloat16")
        with open_writer(path) as writer:
            for seed, task in enumerate(asked):
                drawn, _ = answers(policy, tokenizer, [task], num=num + SPARE, seed=seed)
                texts = [text for text in drawn if text.strip()][:num]
                writer.write(Comparison(JUDGED, texts, id=task.prompt))
    words = {task.prompt: task.word for task in asked}
    return [
        row.replace(ratings=[float(keeps_rule(text, words[row.id or ""])) for text in row.responses])
        for row in read_comparisons(path)
    ]


def rewards(directory: Path, rows: Sequence[Comparison], place: Path) -> dict[str, list[float]]:
    """Return a model's rewards by the rows' ids, which are kept in `place`."""
    path = place / f"{directory.parent.name}.json"
    if not path.is_file():
        scored = load_model(directory, precision="auto").score(rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({row.id: found for row, found in zip(rows, scored, strict=True)}))
    found: dict[str, list[float]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def measured(
    members: Mapping[str, Mapping[str, list[float]]],
    judge: Mapping[str, list[float]],
    rows: Sequence[Comparison],
    place: Path,
) -> dict[str, Any]:
    """Return the curves of reward models and of their ensemble, by what is gold."""
    joined = {}
    for row in rows:
        each = {name: member[row.id or ""] for name, member in members.items()}
        means = [statistics.mean(column) for column in zip(*each.values(), strict=True)]
        joined[row.id or ""] = EnsembleRewards(means, each, [])
    found = {}
    for gold, scorer in {"judge": Scored(judge), "rule": GivenRatings()}.items():
        result = overoptimization(Scored(joined), scorer, rows)
        save_overoptimization(result, place / gold, {"gold": gold})
        print(f"== {place.name}, {gold}", *curve_notes(result), sep="\n")
        found[gold] = result.to_dict()
    return found


def accuracy(directory: Path) -> dict[str, float]:
    """Return the share of pairs of unseen film reviews that a model has in order, by its training."""
    found = load_model(directory).record["evaluation"]
    return {name: found[name] for name in ("accuracy", "low", "high")}


def course_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return a table of reward model and judge along runs that were trained on the reward model."""
    starts = range(0, len(runs[0]["course"]) - WINDOW + 1, WINDOW)
    heads = [f"steps {start + 1} to {start + WINDOW}" for start in starts]
    lines = [f"| trained on | seed | | {' | '.join(heads)} |", "|---|---|---|" + "---:|" * len(heads)]
    for run in _pushed(runs):
        for name, title in (("model", "reward model"), ("judge", "judge")):
            cells = " | ".join(f"{_mean(run, name, start):.2f}" for start in starts)
            lines.append(f"| {run['reward']} | {run['seed']} | {title} | {cells} |")
    return "\n".join(lines)


def gain_table(parts: Mapping[str, Any]) -> str:
    """Return a table of what the gold rewards gain, by who chooses and n."""
    sizes = list(next(iter(parts.values()))["judge"]["kl"])[1:]
    lines = [f"| trained on | gold | chosen by | {' | '.join(f'n = {num}' for num in sizes)} |"]
    lines.append("|---|---|---|" + "---:|" * len(sizes))
    for texts, by_gold in parts.items():
        for gold, part in by_gold.items():
            for name, curve in _curves(part).items():
                cells = " | ".join(_shown(curve["gold"][num]) for num in sizes)
                lines.append(f"| {texts} | {gold} | {name} | {cells} |")
    return "\n".join(lines)


def draw(parts: Mapping[str, Any], runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw each gold reward over KL of best of n, and judge over reward model of the runs."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    panels = [(texts, gold) for texts, by_gold in parts.items() for gold in by_gold]
    figure, places = pyplot.subplots(1, len(panels) + 1, figsize=(5 * len(panels) + 5, 4.5))
    for place, (texts, gold) in zip(places, panels, strict=False):
        part = parts[texts][gold]
        for name, curve in _curves(part).items():
            style = {"color": "tab:grey"} if name.startswith("member") else {"linewidth": 2.0}
            values = [point["value"] for point in curve["gold"].values()]
            [line] = place.plot(part["kl"].values(), values, "o-", markersize=3, label=name, **style)
            values = [point["value"] for point in curve["proxy"].values()]
            place.plot(part["kl"].values(), values, "--", color=line.get_color(), linewidth=0.8)
        place.set_title(f"best of n; reward models of {texts}, gold: {gold}", fontsize=10)
        place.set_xlabel("KL = ln n - (n - 1) / n, nats")
        place.set_ylabel("gain in spreads; solid: gold, dashed: chosen by", fontsize=9)
        place.legend(frameon=False, fontsize=8)
    for run in _pushed(runs):
        color = {"model": "tab:red", "hybrid": "tab:green"}[run["reward"]]
        starts = range(len(run["course"]) - WINDOW + 1)
        model, judge = ([_mean(run, name, start) for start in starts] for name in ("model", "judge"))
        label = f"trained on: {run['reward']}" if run["seed"] == 0 else None
        places[-1].plot(model, judge, color=color, alpha=0.8, label=label)
        places[-1].plot(model[-1], judge[-1], "o", color=color)
    places[-1].set_title(f"runs of table.py, means of {WINDOW} steps; dots are ends", fontsize=10)
    places[-1].set_xlabel("reward model")
    places[-1].set_ylabel("judge")
    places[-1].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def _pushed(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [run for run in runs if run["reward"] != "rule"]


def _mean(run: Mapping[str, Any], name: str, start: int) -> float:
    return statistics.mean(step[name] for step in run["course"][start : start + WINDOW])


def _curves(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return all curves but that of the ensemble as it is, which is `mean` on the members' own scales."""
    return {name: curve for name, curve in part["curves"].items() if name != MODEL}


def _shown(part: Mapping[str, float]) -> str:
    return f"{part['value']:.2f} ± {(part['high'] - part['low']) / 2:.2f}"


def main() -> None:
    """Make what is missing, write it as JSON, print the tables and draw the curves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("runs/rl"), help="where models and answers go")
    parser.add_argument("--proxies", nargs="+", choices=PROXIES, default=["reward_few"])
    parser.add_argument("--seeds", type=int, default=3, help="reward models of each run file")
    parser.add_argument("--prompts", type=int, default=40, help="of the 60 unseen ones")
    parser.add_argument("--num", type=int, default=64, help="answers of a prompt")
    parser.add_argument("--runs", type=Path, default=Path("benchmarks/results/rl.json"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/overoptimization.json"))
    parser.add_argument("--plot", type=Path, default=Path("docs/images/overoptimization.png"))
    parser.add_argument("--draw", action="store_true", help="only draw and print what is kept")
    arguments = parser.parse_args()
    if not arguments.draw:
        models: Path = arguments.models
        rows = samples(models, arguments.prompts, arguments.num)
        place = models / f"overoptimization-{arguments.prompts}-{arguments.num}"
        judge = trained("judge", models)
        accuracies, parts = {"judge": accuracy(judge)}, {}
        for name in arguments.proxies:
            directories = {
                f"seed {seed}": trained(name, models, seed=seed) for seed in range(arguments.seeds)
            }
            members = {seed: rewards(directory, rows, place) for seed, directory in directories.items()}
            accuracies |= {f"{name} {seed}": accuracy(directory) for seed, directory in directories.items()}
            parts[PROXIES[name]] = measured(members, rewards(judge, rows, place), rows, place / name)
        facts = {"platform": platform.platform(), "command": " ".join(sys.argv)}
        kept = {"machine": facts, "accuracy": accuracies, "best_of_n": parts}
        write_text(arguments.results, json.dumps(kept, indent=1) + "\n")
    parts = json.loads(arguments.results.read_text(encoding="utf-8"))["best_of_n"]
    runs = json.loads(arguments.runs.read_text(encoding="utf-8"))["runs"]
    draw(parts, runs, arguments.plot)
    print(gain_table(parts), course_table(runs), sep="\n\n")


if __name__ == "__main__":
    main()
