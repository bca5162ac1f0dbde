"""Rewards for OpenRLHF, of a model in the process or of a server.

A file for `--reward.remote_url`, where there are no images:

    from basereward.integrations.openrlhf import reward_func as made
    reward_func = made("MODEL_DIR")

A file for `--train.agent_func_path`, which images reach:

    from basereward.integrations.openrlhf import agent_executor
    AgentExecutor = agent_executor("http://127.0.0.1:8000")

What OpenRLHF (0.11.2) hands over is read as its `openrlhf/utils/agent.py` does it, one completion a call. It
has no way to leave a completion out: one that can't be scored is an error, which OpenRLHF logs before it
fails, unless `unscored` says what such a completion gets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from basereward.errors import DataError
from basereward.integrations.completions import single_reward, unrendered
from basereward.integrations.reward_source import RewardSource, reward_source
from basereward.integrations.shaping import Shape


def reward_func(
    model: str | Path | RewardSource,
    *,
    shapes: Sequence[Shape] = (),
    unscored: float | None = None,
    **options: Any,
) -> Callable[..., dict[str, Any]]:
    """Return a `reward_func(queries, prompts, labels)`.

    A prompt that a chat template has rendered is taken apart into its turns. Shapes find the label as the
    column `label`.

    Args:
        model: A directory, a server's address, or a function of comparisons.
        shapes: What is done to the raw rewards, one after the other; see `basereward.integrations.shaping`.
        unscored: What a completion gets that can't be scored; None raises the error.
        options: Of `reward_source`, such as `device`, `key`.
    """
    source = reward_source(model, **options)

    def rewards(
        queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any
    ) -> dict[str, Any]:
        import torch

        found = [
            _reward(source, shapes, prompt, _continuation(query, prompt), (), label, unscored)
            for query, prompt, label in zip(queries, prompts, labels, strict=True)
        ]
        shaped = torch.tensor([reward for _, reward in found])
        return {"rewards": shaped, "scores": shaped, "extra_logs": _logs(found)}

    return rewards


def agent_executor(
    model: str | Path | RewardSource,
    *,
    shapes: Sequence[Shape] = (),
    unscored: float | None = None,
    **options: Any,
) -> type:
    """Return an `AgentExecutor` that has the policy answer once, and scores the answer with its images.

    Args:
        model: As for `reward_func`.
        shapes: As for `reward_func`.
        unscored: As for `reward_func`.
        options: As for `reward_func`.
    """
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    source = reward_source(model, **options)

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
                _reward, source, shapes, prompt, answer, _images(images), label, unscored, len(tokens)
            )
            logs = {name: values[0] for name, values in _logs([(raw, reward)]).items()}
            output.update(reward=reward, scores=reward, extra_logs=logs)
            return output

    return AgentExecutor


def _reward(
    source: RewardSource,
    shapes: Sequence[Shape],
    prompt: str,
    continuation: str,
    images: Sequence[object],
    label: Any,
    unscored: float | None,
    num_tokens: int = 0,
) -> tuple[float | None, float]:
    messages, answer = unrendered(prompt, continuation, has_images=bool(images))
    return single_reward(
        source,
        shapes,
        messages,
        answer,
        images=images,
        num_tokens=num_tokens,
        row={"label": label},
        unscored=unscored,
    )


def _continuation(query: str, prompt: str) -> str:
    if not query.startswith(prompt):
        raise DataError(
            "the query doesn't begin with its prompt, as where images were put into it; images reach an "
            "`agent_executor` only",
            field="prompt",
        )
    return query[len(prompt) :]


def _images(images: Any) -> list[object]:
    if images is None:
        return []
    return list(images) if isinstance(images, list | tuple) else [images]


def _logs(found: Sequence[tuple[float | None, float]]) -> dict[str, list[float]]:
    """Return what OpenRLHF logs: numbers, as it makes tensors of them."""
    logs = {"unscored": [float(raw is None) for raw, _ in found]}
    if all(raw is not None for raw, _ in found):
        logs["raw_reward"] = [raw for raw, _ in found if raw is not None]
    return logs
