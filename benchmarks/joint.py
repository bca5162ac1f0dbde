"""Best of 4 by a joint model, whose responses see those before them, and by a forest, where they don't.

Two made tasks of which all is known: in `quality` the best response is the one with the most letters "a",
which each response shows by itself; in `consensus` it is the one whose number of "a" is nearest to the mean
of all four, which no response shows alone. Both models see the same comparisons in the same order, the same
number of tokens and steps, from the same weights.

    python benchmarks/joint.py --output benchmarks/results/amx/joint.json
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from basereward import Comparison, RewardModel
from basereward.config import Component

NUM_RESPONSES, LENGTH = 4, 8


def comparison(chance: random.Random, task: str) -> Comparison:
    """Return four responses of which one is the best, and in which no two have as many "a"."""
    counts = chance.sample(range(LENGTH + 1), NUM_RESPONSES)
    texts = []
    for count in counts:
        letters = ["a"] * count + [chance.choice("bcd") for _ in range(LENGTH - count)]
        chance.shuffle(letters)
        texts.append("".join(letters))
    mean = sum(counts) / NUM_RESPONSES
    # Of two that are equally near the one with more is better.
    costs = [(-count, 0) if task == "quality" else (abs(count - mean), -count) for count in counts]
    return Comparison("?", texts, ranks=[float(sum(other < cost for other in costs)) for cost in costs])


def built(paradigm: str, seed: int) -> RewardModel:
    """Return a model with random weights, the same for both paradigms."""
    torch.manual_seed(seed)
    return RewardModel.build(
        backbone=Component("tiny", {"dim": 48, "num_layers": 2, "num_heads": 2}),
        loss=Component("plackett-luce", {}),
        paradigm=Component(paradigm, {}),
    )


def trained(model: RewardModel, rows: list[Comparison], *, batch_size: int, lr: float) -> float:
    """Train on each comparison once; return the seconds."""
    paradigm = model.paradigm
    optimizer = torch.optim.AdamW(paradigm.parameters(), lr=lr)
    num_steps = len(rows) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=num_steps)
    paradigm.train()
    start = time.process_time()
    for step in range(num_steps):
        optimizer.zero_grad()
        paradigm.loss(rows[step * batch_size : (step + 1) * batch_size]).loss.backward()
        torch.nn.utils.clip_grad_norm_(paradigm.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    paradigm.eval()
    return time.process_time() - start


def best_of_n(rows: list[Comparison], rewards: list[list[float]]) -> float:
    """Return how often the response with the highest reward is the best one."""
    right = [
        (row.ranks or ())[scores.index(max(scores))] == 0 for row, scores in zip(rows, rewards, strict=True)
    ]
    return sum(right) / len(right)


def neighbours(model: RewardModel, rows: list[Comparison], others: list[Comparison]) -> float:
    """Return how far the last response's reward moves where the others are those of another comparison.

    In units of the rewards' standard deviation: the root of the mean square.
    """
    mixed = [
        row.replace(responses=[*other.responses[:-1], row.responses[-1]], ranks=None)
        for row, other in zip(rows, others, strict=True)
    ]
    before, after = model.score(rows), model.score(mixed)
    spread = statistics.pstdev([reward for scores in before for reward in scores])
    moved = [(one[-1] - two[-1]) ** 2 for one, two in zip(before, after, strict=True)]
    return statistics.fmean(moved) ** 0.5 / spread


def measured(task: str, paradigm: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one training."""
    chance = random.Random(f"{task} {seed}")
    rows = [comparison(chance, task) for _ in range(arguments.num_steps * arguments.batch_size)]
    held_out = random.Random(f"{task} held out")
    test = [comparison(held_out, task) for _ in range(arguments.num_test)]
    model = built(paradigm, seed)
    seconds = trained(model, rows, batch_size=arguments.batch_size, lr=arguments.lr)
    start = time.process_time()
    rewards = model.score(test, batch_size=32)
    figures: dict[str, Any] = {
        "task": task,
        "paradigm": paradigm,
        "seed": seed,
        "best_of_4": best_of_n(test, rewards),
        "train_cpu_seconds": round(seconds, 1),
        "score_cpu_seconds": round(time.process_time() - start, 1),
        **model.statistics,
    }
    if paradigm == "joint":
        model.paradigm.both_orders = False
        figures["best_of_4_one_order"] = best_of_n(test, model.score(test, batch_size=32))
    figures["moved_by_neighbours"] = neighbours(model, test, [*test[1:], test[0]])
    return figures


def main() -> None:
    """Train both on both tasks with each seed, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["quality", "consensus"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--num-steps", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--num-test", type=int, default=400)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    runs = []
    for task in arguments.tasks:
        for seed in range(arguments.seeds):
            for paradigm in ("scalar", "joint"):
                runs.append(measured(task, paradigm, seed, arguments))
                print(json.dumps(runs[-1]), flush=True)
                if arguments.output is not None:
                    settings = {name: value for name, value in vars(arguments).items() if name != "output"}
                    text = json.dumps({"settings": settings, "runs": runs}, indent=2)
                    arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
