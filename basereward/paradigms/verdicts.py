"""Verdicts on pairs: which pairs are asked about, how answers are read, and what rewards follow.

Shapes: N responses, E pairs that were asked about.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

Aggregate = Literal["wins", "bradley-terry"]

Verdicts: TypeAlias = Mapping[tuple[int, int], tuple[int | None, ...]]
"""The answers on a comparison by the responses shown first and second: 1, 2, or None where none was read."""

ANSWER = re.compile(
    r"<think>(?P<reasoning>.*?)</think>\s*<answer>\s*(?P<verdict>[12])\s*</answer>", re.DOTALL
)

LOOSE_ANSWER = re.compile(r"<answer>\s*(?P<verdict>[12])\s*</answer>")

BETTER = re.compile(r"\banswer (?P<verdict>[12]) is better\b", re.IGNORECASE)

TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)

Reading = Literal["form", "r1-reward", "unified-reward"]

PRIOR = 0.1
"""Strength of the pull of fitted rewards to zero, without which a response that always wins has none."""


def read_verdict(text: str, reading: Reading = "form") -> int | None:
    """Return 1 or 2, the verdict of a judge that thinks first; None where there is none to be read.

    Args:
        text: The whole turn.
        reading: `form` reads <think>...</think><answer>1</answer> and nothing else. `r1-reward` reads as that
            model's released scripts (arXiv 2505.02835) do: the answer in its tags, else the last 1 or 2 in
            the text, else 2; every text is a verdict then. `unified-reward` reads the sentence
            "Answer 1 is better" of UnifiedReward (arXiv 2503.05236), the last one where there are several,
            and the one between <answer> and </answer> where there are these tags.
    """
    if reading == "form":
        match = ANSWER.fullmatch(text.strip())
        return None if match is None else int(match["verdict"])
    if reading == "unified-reward":
        tagged = TAGGED.findall(text)
        sentences = BETTER.findall(tagged[-1] if tagged else text)
        return int(sentences[-1]) if sentences else None
    if match := LOOSE_ANSWER.search(text):
        return int(match["verdict"])
    numbers = re.findall("[12]", text)
    return int(numbers[-1]) if numbers else 2


def chosen_pairs(num_responses: int, max_pairs: int | None) -> list[tuple[int, int]]:
    """Return the pairs of N responses that are asked about: all, or as many as allowed.

    These compare each response with its next, then with the one after that, and so on round the circle, so
    that all are connected and each is in about as many pairs; N - 1 pairs are the fewest that connect them.
    """
    every = list(combinations(range(num_responses), 2))
    if max_pairs is None or len(every) <= max_pairs:
        return every
    circle = [
        tuple(sorted((first, (first + step) % num_responses)))
        for step in range(1, num_responses // 2 + 1)
        for first in range(num_responses)
    ]
    unique = list(dict.fromkeys(circle))  # halfway round the circle every pair comes twice
    return [(first, second) for first, second in unique[: max(max_pairs, num_responses - 1)]]


def rewards_of(
    preferences: Mapping[tuple[int, int], float | None], num_responses: int, aggregate: Aggregate
) -> list[float]:
    """Return a reward for each response of a comparison; all not-a-number where they can't be told.

    Args:
        preferences: For each pair that was asked about, the probability that its first response is better;
            None where no answer could be read.
        num_responses: N.
        aggregate: `wins` is a response's mean probability of being better than the others it was compared
            with, the win sum of arXiv 2509.16127, section 5.4.1, divided by their number; `bradley-terry` are
            the rewards under which these preferences are likeliest, with a normal prior.
    """
    readable = {pair: share for pair, share in preferences.items() if share is not None}
    if num_responses == 1:
        return [0.0]
    if not _connects(readable, num_responses):
        return [math.nan] * num_responses
    if aggregate == "bradley-terry":
        return _fitted(readable, num_responses)
    wins: list[list[float]] = [[] for _ in range(num_responses)]
    for (first, second), share in readable.items():
        wins[first].append(share)
        wins[second].append(1 - share)
    return [math.fsum(shares) / len(shares) for shares in wins]


def _connects(pairs: Sequence[tuple[int, int]] | Mapping[tuple[int, int], float], num_responses: int) -> bool:
    """Tell whether the pairs leave no group of responses that was compared with no other."""
    reached = {0}
    waiting = [0]
    while waiting:
        here = waiting.pop()
        for pair in pairs:
            first, second = pair
            there = second if here == first else first
            if here in pair and there not in reached:
                reached.add(there)
                waiting.append(there)
    return len(reached) == num_responses


def _fitted(preferences: Mapping[tuple[int, int], float], num_responses: int) -> list[float]:
    """Return the rewards r that minimize, by Newton's method,

    sum over pairs of [ -p log s(r_i - r_j) - (1 - p) log s(r_j - r_i) ] + PRIOR / 2 |r|^2.
    """
    first, second = torch.tensor(list(preferences)).unbind(1)  # [E]
    design = torch.zeros(len(first), num_responses, dtype=torch.float64)  # [E, N]
    rows = torch.arange(len(first))
    design[rows, first], design[rows, second] = 1.0, -1.0
    wanted = torch.tensor(list(preferences.values()), dtype=torch.float64)
    rewards = torch.zeros(num_responses, dtype=torch.float64)
    pull = PRIOR * torch.eye(num_responses, dtype=torch.float64)

    def cost(at: Tensor) -> Tensor:
        margins = design @ at
        return (functional.softplus(margins) - wanted * margins).sum() + PRIOR / 2 * at.square().sum()

    for _ in range(50):
        shares = (design @ rewards).sigmoid()
        gradient = design.T @ (shares - wanted) + PRIOR * rewards
        hessian = design.T @ ((shares * (1 - shares))[:, None] * design) + pull
        step = torch.linalg.solve(hessian, gradient)
        length = 1.0
        while cost(rewards - length * step) > cost(rewards) and length > 1e-6:
            length /= 2
        rewards = rewards - length * step
        if float(step.abs().max()) < 1e-12:
            break
    return rewards.tolist()
