"""Reward shaping for reinforcement learning: functions from a model's raw rewards to training rewards.

Each function returns a shape; shapes are applied one after the other. A reward of None, of a completion that
could not be scored, stays None.

Shapes: N completions of a call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from basereward.errors import ConfigError, DataError
from basereward.integrations.rules import Rule

Rewards = Sequence["float | None"]


@dataclass(frozen=True)
class Rollouts:
    """Completions of a policy, without their rewards.

    Args:
        completions: [N] texts.
        groups: [N] the number of each completion's prompt; completions of one prompt are a group.
        lengths: [N] in tokens of the policy.
        columns: Other columns of the data set by name, each [N].
    """

    completions: Sequence[str]
    groups: Sequence[int]
    lengths: Sequence[int]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)


Shape = Callable[[Rewards, Rollouts], "list[float | None]"]


def apply(shapes: Sequence[Shape], rewards: Rewards, rollouts: Rollouts) -> list[float | None]:
    """Return rewards [N] after one shape and the next; none leaves them raw."""
    shaped = list(rewards)
    for shape in shapes:
        shaped = shape(shaped, rollouts)
    return shaped


def sigmoid(*, center: float = 0.0, scale: float = 1.0) -> Shape:
    """Return 1 / (1 + exp(-(r - center) / scale)), in (0, 1).

    Bradley-Terry rewards have no natural zero: where most are far from `center`, all are mapped to almost the
    same value. `calibrated` takes the center from data.
    """
    if not (math.isfinite(center) and 0 < scale < math.inf):
        raise ConfigError(f"center is a finite number and scale one > 0, not {center} and {scale}")
    return _each(lambda reward: _sigmoid((reward - center) / scale))


def calibrated(references: Sequence[float], *, temperature: float = 1.0) -> Shape:
    """Return the probability of being better than a response drawn from references, in (0, 1).

    By Bradley-Terry that is the mean of 1 / (1 + exp(-(r - reference) / temperature)).

    Args:
        references: Rewards of such responses by the same model, for example of the untrained policy's.
        temperature: The divisor that makes the model's margins true log-odds, from `basereward evaluate`.
    """
    values = [float(value) for value in references]
    if not values or not all(map(math.isfinite, values)) or not 0 < temperature < math.inf:
        raise ConfigError(
            "references are one or more finite rewards and temperature is a number > 0, not "
            f"{len(values)} rewards and {temperature}"
        )

    def probability(reward: float) -> float:
        return math.fsum(_sigmoid((reward - value) / temperature) for value in values) / len(values)

    return _each(probability)


def hybrid(rule: Rule, *, column: str = "answer", otherwise: Shape | None = None) -> Shape:
    """Return 1 where a rule finds the right answer, else the sigmoid of the reward.

    None where the row's right answer can't be read.

    The best of arXiv 2509.16127, section 5.4.1: right answers get 1, and wrong ones still have a gradient.

    Args:
        rule: Returns whether a completion matches the right answer.
        column: The column of the right answers.
        otherwise: The shape for the others; None for `sigmoid()`. Its values should stay below 1, or a wrong
            answer could be worth more than a right one.
    """
    lower = otherwise or sigmoid()

    def shape(rewards: Rewards, rollouts: Rollouts) -> list[float | None]:
        verdicts = verified(rule, rollouts.completions, column_of(rollouts.columns, column))
        return [
            None if is_right is None else 1.0 if is_right else reward
            for is_right, reward in zip(verdicts, lower(rewards, rollouts), strict=True)
        ]

    return shape


def verified(rule: Rule, completions: Sequence[str], answers: Sequence[Any]) -> list[bool | None]:
    """Return whether each completion has the right answer; None where the row's answer can't be read.

    Raises:
        DataError: When none can, so that no single row is at fault.
    """
    verdicts: list[bool | None] = []
    errors: list[DataError] = []
    for completion, answer in zip(completions, answers, strict=True):
        try:
            verdicts.append(bool(rule(completion, answer)))
        except DataError as error:
            errors.append(error)
            verdicts.append(None)
    if errors and len(errors) == len(verdicts):
        raise errors[0]
    return verdicts


def group_normalized(*, epsilon: float = 1e-4) -> Shape:
    """Return (r - mean) / (standard deviation + epsilon) over the completions of each prompt.

    GRPO normalizes the sum of its rewards; this puts one of several rewards on a common scale before. In a
    group of one the result is 0.
    """
    if not epsilon > 0:
        raise ConfigError(f"epsilon is a number > 0, not {epsilon}")

    def shape(rewards: Rewards, rollouts: Rollouts) -> list[float | None]:
        members: dict[int, list[float]] = {}
        for group, reward in zip(rollouts.groups, rewards, strict=True):
            if reward is not None:
                members.setdefault(group, []).append(reward)
        moments = {group: _mean_and_deviation(values) for group, values in members.items()}
        return [
            None if reward is None else (reward - moments[group][0]) / (moments[group][1] + epsilon)
            for group, reward in zip(rollouts.groups, rewards, strict=True)
        ]

    return shape


def length_penalized(*, per_token: float, free_tokens: int = 0) -> Shape:
    """Return r - per_token * tokens beyond `free_tokens`."""
    if not (0 <= per_token < math.inf and free_tokens >= 0):
        raise ConfigError(f"per_token and free_tokens are numbers >= 0, not {per_token} and {free_tokens}")

    def shape(rewards: Rewards, rollouts: Rollouts) -> list[float | None]:
        return [
            None if reward is None else reward - per_token * max(0, length - free_tokens)
            for reward, length in zip(rewards, rollouts.lengths, strict=True)
        ]

    return shape


def clipped(low: float, high: float) -> Shape:
    """Return the nearest value in [low, high]."""
    if not low < high:
        raise ConfigError(f"low is less than high; they are {low} and {high}")
    return _each(lambda reward: min(max(reward, low), high))


def column_of(columns: Mapping[str, Sequence[Any]], name: str) -> Sequence[Any]:
    """Return a column of the data set.

    Raises:
        ConfigError: When there is none of that name.
    """
    if name not in columns:
        raise ConfigError(
            f"the data set has no column {name!r}; columns: {', '.join(sorted(columns)) or 'none'}"
        )
    return columns[name]


def _each(function: Callable[[float], float]) -> Shape:
    def shape(rewards: Rewards, rollouts: Rollouts) -> list[float | None]:
        return [None if reward is None else function(reward) for reward in rewards]

    return shape


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, 0.0
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
