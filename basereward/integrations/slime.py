"""Rewards for slime, of a model in the process or of a server.

A module for `--custom-rm-path my_rewards.custom_rm`, with or without `--group-rm`:

    from basereward.integrations.slime import custom_rm as made
    custom_rm = made("http://127.0.0.1:8000")

Samples are those of `slime/utils/types.py` (2026-08), with images in `multimodal_inputs`. slime can't leave a
sample out: one that can't be scored is an error, unless `unscored` gives it a reward.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

from basereward.errors import DataError
from basereward.integrations.completions import CompletionScorer, ScorerOptions, listed, unrendered
from basereward.integrations.reward_source import RewardSource


def custom_rm(
    model: str | Path | RewardSource, **options: Unpack[ScorerOptions]
) -> Callable[..., Awaitable[float | list[float]]]:
    """Return a coroutine function of a sample, or with `--group-rm` of the samples of a prompt.

    A prompt that a chat template has rendered is parsed into its turns. Shapes find the label as the column
    `label`, and the sample's metadata under their names. The arguments are those of `CompletionScorer`.
    """
    scorer = CompletionScorer(model, **options)

    async def rewards(args: Any, sample: Any, **_: Any) -> float | list[float]:
        samples = sample if isinstance(sample, list) else [sample]
        scores = await asyncio.to_thread(_rewards, scorer, samples)
        return scores if isinstance(sample, list) else scores[0]

    return rewards


def _rewards(scorer: CompletionScorer, samples: Sequence[Any]) -> list[float]:
    images = [_images(sample) for sample in samples]
    pairs = [_pair(sample, bool(shown)) for sample, shown in zip(samples, images, strict=True)]
    names = {name for sample in samples for name in sample.metadata or ()}
    columns = {name: [(sample.metadata or {}).get(name) for sample in samples] for name in names}
    try:
        _, shaped = scorer.score(
            [prompt for prompt, _ in pairs],
            [text for _, text in pairs],
            images=images,
            lengths=[sample.response_length for sample in samples],
            columns={**columns, "label": [sample.label for sample in samples]},
        )
    except DataError:
        if scorer.unscored is None:
            raise
        shaped = [None] * len(samples)
    rewards = [scorer.unscored if reward is None else reward for reward in shaped]
    if None in rewards:
        raise DataError(
            f"sample {rewards.index(None)} of {len(samples)} can't be scored; `unscored` says what such get"
        )
    return [reward for reward in rewards if reward is not None]


def _pair(sample: Any, has_images: bool) -> tuple[Any, str]:
    """Return a sample's prompt and response; for the prompt its error, if it can't be read."""
    if not isinstance(sample.prompt, str):
        return sample.prompt, sample.response
    try:
        return unrendered(sample.prompt, sample.response, has_images=has_images)
    except DataError as error:
        return error, sample.response


def _images(sample: Any) -> list[object]:
    return listed((sample.multimodal_inputs or {}).get("images"))
