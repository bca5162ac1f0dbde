"""Rewards for verl, of a model in the process or of a server.

A file with a manager, which images reach:

    from basereward.integrations.verl import reward_manager
    BaseReward = reward_manager("http://127.0.0.1:8000")

for `reward.reward_manager.source=importlib reward.reward_manager.module.path=FILE
reward.reward_manager.name=BaseReward`; or one with a function, to which verl gives neither prompt nor
images, so that the data set's `extra_info` must have both:

    from basereward.integrations.verl import compute_score as made
    compute_score = made("http://127.0.0.1:8000")

for `reward.custom_reward_function.path=FILE`. The calls are those of verl 0.9.1,
`verl/experimental/reward_loop`. verl can't leave a completion out: one that can't be scored is an error,
unless `unscored` gives it a reward.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Unpack

from basereward.errors import ConfigError
from basereward.integrations.completions import CompletionScorer, ScorerOptions, listed
from basereward.integrations.reward_source import RewardSource


def compute_score(
    model: str | Path | RewardSource, *, prompt_key: str = "question", **options: Unpack[ScorerOptions]
) -> Callable[..., Awaitable[dict[str, float]]]:
    """Return a `compute_score` for `reward.custom_reward_function`.

    Shapes find the right answer as the column `ground_truth`, and fields of `extra_info` under their names.

    Args:
        model: As for `CompletionScorer`.
        prompt_key: The key of the prompt in `extra_info`; images are under `images`.
        options: As for `CompletionScorer`.
    """
    scorer = CompletionScorer(model, **options)

    async def score(
        data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **_: Any
    ) -> dict[str, float]:
        info = dict(extra_info or {})
        if prompt_key not in info:
            raise ConfigError(
                f"extra_info has no {prompt_key!r}, only {', '.join(sorted(info)) or 'nothing'}; write the "
                "prompt there in the data set, name its place by `prompt_key`, or take a `reward_manager`"
            )
        row = {**info, "data_source": data_source, "ground_truth": ground_truth}
        raw, reward = await asyncio.to_thread(
            scorer.score_one,
            info[prompt_key],
            solution_str,
            images=listed(info.get("images")),
            row=row,
            prompt_columns=(prompt_key,),
        )
        return _result(raw, reward)

    return score


def reward_manager(model: str | Path | RewardSource, **options: Unpack[ScorerOptions]) -> type:
    """Return a class for `reward.reward_manager`, which sends the prompt's messages with their images.

    Shapes find the right answer as the column `ground_truth`, and fields of `extra_info` under their names.
    The arguments are those of `CompletionScorer`.
    """
    from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

    scorer = CompletionScorer(model, **options)

    class BaseReward(RewardManagerBase):  # type: ignore[misc]  # verl has no types
        """Rewards of a model."""

        def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **_: Any) -> None:
            super().__init__(config, tokenizer, compute_score)

        async def run_single(self, data: Any) -> dict[str, Any]:
            """Return the reward of the last sequence of a sample."""
            item = data[-1:][0]
            others = item.non_tensor_batch
            ids = item.batch["responses"]
            num_tokens = int(item.batch["attention_mask"][-ids.shape[-1] :].sum())
            text = self.tokenizer.decode(ids[:num_tokens], skip_special_tokens=True)
            row = {
                **(others.get("extra_info") or {}),
                "data_source": others.get("data_source"),
                "ground_truth": (others.get("reward_model") or {}).get("ground_truth"),
            }
            raw, reward = await asyncio.to_thread(
                scorer.score_one,
                [dict(message) for message in others["raw_prompt"]],
                text,
                num_tokens=num_tokens,
                row=row,
            )
            result = _result(raw, reward)
            return {"reward_score": result.pop("score"), "reward_extra_info": result}

    return BaseReward


def _result(raw: float | None, reward: float) -> dict[str, float]:
    """Return the reward and the numbers for verl's log, which must have the same names for every sample."""
    return {"score": reward, "raw_reward": reward if raw is None else raw, "unscored": float(raw is None)}
