"""Rewards for TRL's GRPOTrainer and RLOOTrainer, of a model in the process or of a server.

from trl import GRPOTrainer
from basereward.integrations.rules import exact_match
from basereward.integrations.shaping import hybrid
from basereward.integrations.trl import reward_func

reward = reward_func("MODEL_DIR", shapes=[hybrid(exact_match, column="answer")])
trainer = GRPOTrainer("Qwen/Qwen2.5-VL-3B-Instruct", reward, ...)

Pictures reach the reward model, from the prompt's parts or from the columns `image` and `images`, and all
completions of a prompt are scored together, the prompt read once.

Letters: N completions of a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.integrations.reward_source import RewardSource, reward_source
from basereward.integrations.rules import Rule
from basereward.integrations.shaping import Rollouts, Shape, apply, column_of


def reward_func(
    model: str | Path | RewardSource,
    *,
    shapes: Sequence[Shape] = (),
    prompt_column: str | None = None,
    name: str = "reward",
    **options: Any,
) -> Callable[..., list[float | None]]:
    """Return a reward function for TRL's `reward_funcs`.

    A completion that can't be scored, an empty one say, has None, which leaves it out of its group's
    advantages; the metric `NAME/unscored` says how many these are. Add a rule that punishes them.

    Args:
        model: A directory, a server's address, or a function of comparisons.
        shapes: What is done to the raw rewards, one after the other; see `basereward.integrations.shaping`.
        prompt_column: The column with the prompt that the reward model sees; None for the policy's own.
        name: What TRL's log calls it.
        options: Of `reward_source`, such as `device`, `batch_size`, `key`.
    """
    source = model if callable(model) else reward_source(model, **options)

    def reward(**columns: Any) -> list[float | None]:
        return _rewards(source, shapes, prompt_column, name, columns)

    reward.__name__ = name
    return reward


def async_reward_func(
    model: str | Path | RewardSource,
    *,
    shapes: Sequence[Shape] = (),
    prompt_column: str | None = None,
    name: str = "reward",
    **options: Any,
) -> Callable[..., Awaitable[list[float | None]]]:
    """Return an asynchronous reward function; TRL awaits all such together, each in a thread of its own.

    Worth it for several servers. Shapes run in the thread too, where math-verify, which stops by signals,
    can't work.

    Args:
        model: As for `reward_func`.
        shapes: As for `reward_func`.
        prompt_column: As for `reward_func`.
        name: As for `reward_func`.
        options: As for `reward_func`.
    """
    source = model if callable(model) else reward_source(model, **options)

    async def reward(**columns: Any) -> list[float | None]:
        return await asyncio.to_thread(_rewards, source, shapes, prompt_column, name, columns)

    reward.__name__ = name
    return reward


def rule_reward(rule: Rule, *, column: str = "answer", name: str | None = None) -> Callable[..., list[float]]:
    """Return a reward function that gives 1 where the rule finds the right answer, else 0.

    Args:
        rule: One of `basereward.integrations.rules`, or your own.
        column: Of the data set, with the right answers.
        name: What the log calls it; None for the rule's own name.
    """

    def reward(completions: Sequence[Any], **columns: Any) -> list[float]:
        answers = column_of(columns, column)
        return [
            float(rule(completion_text(completion), answer))
            for completion, answer in zip(completions, answers, strict=True)
        ]

    reward.__name__ = name or str(getattr(rule, "__name__", "rule"))
    return reward


def completion_text(completion: str | Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a completion: a text, or messages of which the last is the answer."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or ())


def _rewards(
    source: RewardSource,
    shapes: Sequence[Shape],
    prompt_column: str | None,
    name: str,
    columns: Mapping[str, Any],
) -> list[float | None]:
    completions: Sequence[Any] = columns["completions"]
    prompts = columns["prompts"] if prompt_column is None else column_of(columns, prompt_column)
    texts = [completion_text(completion) for completion in completions]
    asked = [_whole_prompt(*pair) for pair in zip(prompts, completions, strict=True)]
    groups = _groups(asked)
    raw = _raw(source, asked, texts, _pictures(columns, len(texts)), groups)
    if (log := columns.get("log_metric")) is not None:
        scored = [reward for reward in raw if reward is not None]
        log(f"{name}/unscored", 1 - len(scored) / len(raw))
        if scored:
            log(f"{name}/raw", sum(scored) / len(scored))
    lengths = [len(ids) for ids in columns["completion_ids"]]
    return apply(shapes, raw, Rollouts(texts, groups, lengths, columns))


def _raw(
    source: RewardSource,
    prompts: Sequence[Any],
    texts: Sequence[str],
    pictures: Sequence[Sequence[object]],
    groups: Sequence[int],
) -> list[float | None]:
    """Return raw rewards [N]; None where there is none.

    Raises:
        DataError: When no completion at all could be scored, which is no matter of a single one.
    """
    members: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        if texts[number].strip():
            members.setdefault(group, []).append(number)
    comparisons: list[Comparison] = []
    numbers: list[list[int]] = []
    errors: list[DataError] = []
    for own in members.values():
        prompt = prompts[own[0]]
        images = () if _has_pictures(prompt) else pictures[own[0]]
        try:
            comparisons.append(Comparison(prompt, [texts[number] for number in own], images=images))
            numbers.append(own)
        except DataError as error:
            errors.append(error)
    rewards: list[float | None] = [None] * len(texts)
    for own, found in zip(numbers, source(comparisons) if comparisons else (), strict=True):
        if isinstance(found, DataError):
            errors.append(found)
            continue
        for number, reward in zip(own, found, strict=True):
            rewards[number] = reward
    if errors and len(errors) == len(members):
        raise errors[0]
    return rewards


def _whole_prompt(prompt: Any, completion: Any) -> Any:
    """Return what a completion's last message answers: the prompt, and the turns of tools before it."""
    if isinstance(prompt, str) or isinstance(completion, str) or len(completion) < 2:
        return prompt
    return [*prompt, *completion[:-1]]


def _groups(prompts: Sequence[Any]) -> list[int]:
    """Return the number of each completion's prompt; TRL puts the completions of a prompt side by side."""
    groups: list[int] = []
    for number, prompt in enumerate(prompts):
        is_same = number > 0 and prompt == prompts[number - 1]
        groups.append(groups[-1] if is_same else groups[-1] + 1 if groups else 0)
    return groups


def _pictures(columns: Mapping[str, Any], num: int) -> list[Sequence[object]]:
    """Return the pictures of each completion's row from the columns that TRL knows."""
    if (several := columns.get("images")) is not None:
        return [images or () for images in several]
    if (single := columns.get("image")) is not None:
        return [() if image is None else (image,) for image in single]
    return [()] * num


def _has_pictures(prompt: Any) -> bool:
    return not isinstance(prompt, str) and any(
        part.get("type") == "image" and part.get("image") is not None
        for message in prompt
        if not isinstance(message["content"], str)
        for part in message["content"]
    )
