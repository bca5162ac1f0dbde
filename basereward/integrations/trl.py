"""Rewards for TRL's GRPOTrainer and RLOOTrainer, of a model in the process or of a server.

from trl import GRPOTrainer
from basereward.integrations.rules import exact_match
from basereward.integrations.shaping import hybrid
from basereward.integrations.trl import reward_func

reward = reward_func("MODEL_DIR", shapes=[hybrid(exact_match, column="answer")])
trainer = GRPOTrainer("Qwen/Qwen2.5-VL-3B-Instruct", reward, ...)

Images reach the reward model, from the prompt's parts or from the columns `image` and `images`, and all
completions of a prompt are scored together, the prompt read once.

Shapes: N completions of a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from basereward.integrations.completions import completion_text, images_of, shaped_rewards
from basereward.integrations.reward_source import RewardSource, reward_source
from basereward.integrations.rules import Rule
from basereward.integrations.shaping import Shape, column_of


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
    source = reward_source(model, **options)

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
    source = reward_source(model, **options)

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
    raw, shaped = shaped_rewards(
        source,
        shapes,
        asked,
        texts,
        images=images_of(columns, len(texts)),
        lengths=[len(ids) for ids in columns["completion_ids"]],
        columns=columns,
    )
    if (log := columns.get("log_metric")) is not None:
        scored = [reward for reward in raw if reward is not None]
        log(f"{name}/unscored", 1 - len(scored) / len(raw))
        if scored:
            log(f"{name}/raw", sum(scored) / len(scored))
    return shaped


def _whole_prompt(prompt: Any, completion: Any) -> Any:
    """Return what a completion's last message answers: the prompt, and the turns of tools before it."""
    if isinstance(prompt, str) or isinstance(completion, str) or len(completion) < 2:
        return prompt
    return [*prompt, *completion[:-1]]
