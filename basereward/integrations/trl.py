"""Rewards for TRL's GRPOTrainer and RLOOTrainer, of a model in the process or of a server.

from trl import GRPOTrainer
from basereward.integrations.rules import exact_match
from basereward.integrations.shaping import hybrid
from basereward.integrations.trl import reward_func

reward = reward_func("MODEL_DIR", shapes=[hybrid(exact_match, column="answer")])
trainer = GRPOTrainer("Qwen/Qwen2.5-VL-3B-Instruct", reward, ...)

Images reach the reward model from the prompt's parts or from the columns `image` and `images`. All
completions of a prompt are scored together, so that the prompt is encoded once.

Shapes: N completions of a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from basereward.errors import DataError
from basereward.integrations.completions import CompletionScorer, answered, completion_text, images_of
from basereward.integrations.reward_source import RewardSource, SourceOptions
from basereward.integrations.rules import Rule
from basereward.integrations.shaping import Shape, column_of, verified


def reward_func(
    model: str | Path | RewardSource,
    *,
    shapes: Sequence[Shape] = (),
    prompt_column: str | None = None,
    name: str = "reward",
    **options: Unpack[SourceOptions],
) -> Callable[..., list[float | None]]:
    """Return a reward function for TRL's `reward_funcs`.

    The reward of a completion that can't be scored, such as an empty one, is None, which leaves it out of its
    group's advantages; the metric `NAME/unscored` is their share. Add a rule that punishes them.

    Args:
        model: As for `CompletionScorer`.
        shapes: As for `CompletionScorer`.
        prompt_column: The column with the reward model's prompt; None for the policy's.
        name: The name in TRL's log.
        options: As for `CompletionScorer`.
    """
    scorer = CompletionScorer(model, shapes=shapes, **options)

    def reward(**columns: Any) -> list[float | None]:
        return _rewards(scorer, prompt_column, name, columns)

    reward.__name__ = name
    return reward


def async_reward_func(
    model: str | Path | RewardSource,
    *,
    shapes: Sequence[Shape] = (),
    prompt_column: str | None = None,
    name: str = "reward",
    **options: Unpack[SourceOptions],
) -> Callable[..., Awaitable[list[float | None]]]:
    """Return the asynchronous form of `reward_func`; TRL awaits all such together, each in its own thread.

    It pays with several servers. Shapes run in the thread too, where math-verify, whose timeout uses signals,
    can't work.
    """
    waiting = reward_func(model, shapes=shapes, prompt_column=prompt_column, name=name, **options)

    async def reward(**columns: Any) -> list[float | None]:
        return await asyncio.to_thread(waiting, **columns)

    reward.__name__ = name
    return reward


def rule_reward(
    rule: Rule, *, column: str = "answer", name: str | None = None
) -> Callable[..., list[float | None]]:
    """Return a reward function that gives 1 where the rule finds the right answer, else 0.

    None where the row's right answer can't be read.

    Args:
        rule: One of `basereward.integrations.rules`, or your own.
        column: The column of the data set with the right answers.
        name: The name in the log; None for the rule's own.
    """

    def reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        verdicts = verified(rule, [*map(completion_text, completions)], column_of(columns, column))
        return [None if is_right is None else float(is_right) for is_right in verdicts]

    reward.__name__ = name or str(getattr(rule, "__name__", "rule"))
    return reward


def _rewards(
    scorer: CompletionScorer, prompt_column: str | None, name: str, columns: Mapping[str, Any]
) -> list[float | None]:
    completions: Sequence[Any] = columns["completions"]
    prompts = columns["prompts"] if prompt_column is None else column_of(columns, prompt_column)
    texts = [completion_text(completion) for completion in completions]
    raw, shaped = scorer.score(
        [_whole_prompt(*pair) for pair in zip(prompts, completions, strict=True)],
        texts,
        images=images_of(columns, len(texts)),
        lengths=[len(ids) for ids in columns["completion_ids"]],
        columns=columns,
        prompt_columns=() if prompt_column is None else (prompt_column,),
    )
    if (log := columns.get("log_metric")) is not None:
        scored = [reward for reward in raw if reward is not None]
        log(f"{name}/unscored", 1 - len(scored) / len(raw))
        if scored:
            log(f"{name}/raw", sum(scored) / len(scored))
    return shaped


def _whole_prompt(prompt: Any, completion: Any) -> Any:
    """Return the prompt of a completion's last message: the policy's prompt, then any turns of tools.

    It is the error of a message that is more than a text.
    """
    prompt = answered(prompt, completion)
    if isinstance(completion, str) or len(completion) < 2 or isinstance(prompt, DataError):
        return prompt
    if isinstance(prompt, str):
        return DataError("the completion has turns of tools, and the prompt is a text", field="completion")
    return [*prompt, *completion[:-1]]
