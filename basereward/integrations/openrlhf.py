"""Rewards for OpenRLHF, of a model in the process or of a server.

A file for `--reward.remote_url`, where there are no images:

    from basereward.integrations.openrlhf import reward_func as made
    reward_func = made("MODEL_DIR")

A file for `--train.agent_func_path`, which images reach:

    from basereward.integrations.openrlhf import agent_executor
    AgentExecutor = agent_executor("http://127.0.0.1:8000")

The calls are those of OpenRLHF 0.11.2, `openrlhf/utils/agent.py`, one completion each. OpenRLHF can't leave a
completion out: one that can't be scored is an error, which OpenRLHF logs before it fails, unless `unscored`
gives it a reward.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

from basereward.errors import DataError
from basereward.integrations.completions import CompletionScorer, ScorerOptions, listed, unrendered
from basereward.integrations.reward_source import RewardSource


def reward_func(
    model: str | Path | RewardSource, **options: Unpack[ScorerOptions]
) -> Callable[..., dict[str, Any]]:
    """Return a `reward_func(queries, prompts, labels)`.

    A prompt that a chat template has rendered is parsed into its turns. Shapes find the label as the column
    `label`. The arguments are those of `CompletionScorer`.
    """
    scorer = CompletionScorer(model, **options)

    def score(
        queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any
    ) -> dict[str, Any]:
        import torch

        rewards = [
            _reward(scorer, prompt, query, (), label)
            for query, prompt, label in zip(queries, prompts, labels, strict=True)
        ]
        shaped = torch.tensor([reward for _, reward in rewards])
        return {"rewards": shaped, "scores": shaped, "extra_logs": _logs(rewards)}

    return score


def agent_executor(model: str | Path | RewardSource, **options: Unpack[ScorerOptions]) -> type:
    """Return an `AgentExecutor` that has the policy answer once, and scores the answer with its images.

    The arguments are those of `CompletionScorer`.
    """
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    scorer = CompletionScorer(model, **options)

    class AgentExecutor(SingleTurnAgentExecutor):  # type: ignore[misc]  # OpenRLHF has no types
        """One answer, scored with the prompt's images."""

        async def execute(
            self,
            prompt: str,
            label: Any,
            sampling_params: Any,
            max_length: int,
            hf_tokenizer: Any,
            llm_engine: Any,
            images: Any = None,
        ) -> dict[str, Any]:
            """Return OpenRLHF's record of an answer, with its reward."""
            output: dict[str, Any] = await super().execute(
                prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=images
            )
            [(start, end)] = output["action_ranges"]
            tokens = output["observation_tokens"][start:end]
            answer = hf_tokenizer.decode(tokens, skip_special_tokens=False)
            # In a thread: other answers are being written meanwhile.
            raw, reward = await asyncio.to_thread(
                _reward, scorer, prompt, prompt + answer, listed(images), label, len(tokens)
            )
            logs = {name: values[0] for name, values in _logs([(raw, reward)]).items()}
            output.update(reward=reward, scores=reward, extra_logs=logs)
            return output

    return AgentExecutor


def _reward(
    scorer: CompletionScorer,
    prompt: str,
    query: str,
    images: Sequence[object],
    label: Any,
    num_tokens: int = 0,
) -> tuple[float | None, float]:
    messages: Any
    try:
        messages, answer = unrendered(prompt, _continuation(query, prompt), has_images=bool(images))
    except DataError as error:
        messages, answer = error, query
    return scorer.score_one(messages, answer, images=images, num_tokens=num_tokens, row={"label": label})


def _continuation(query: str, prompt: str) -> str:
    if not query.startswith(prompt):
        raise DataError(
            "the query doesn't begin with its prompt, as where images were put into it; images reach an "
            "`agent_executor` only",
            field="prompt",
        )
    return query[len(prompt) :]


def _logs(rewards: Sequence[tuple[float | None, float]]) -> dict[str, list[float]]:
    """Return the numbers for OpenRLHF's log, of raw and shaped rewards; it makes tensors of them."""
    logs = {"unscored": [float(raw is None) for raw, _ in rewards]}
    raw_rewards = [raw for raw, _ in rewards if raw is not None]
    return logs | ({"raw_reward": raw_rewards} if len(raw_rewards) == len(rewards) else {})
