"""Rewards for slime, of a model in the process or of a server.

A module for `--custom-rm-path my_rewards.custom_rm`, with or without `--group-rm`:

    from basereward.integrations.slime import custom_rm as made
    custom_rm = made("http://127.0.0.1:8000")

Samples are read as `slime/utils/types.py` (2026-08) has them; images come out of `multimodal_inputs`. slime
has no way to leave a sample out: one that can't be scored is an error, unless `unscored` says what it gets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from basereward.errors import DataError
from basereward.integrations.completions import shaped_rewards, unrendered
from basereward.integrations.reward_source import RewardSource, reward_source
from basereward.integrations.shaping import Shape


def custom_rm(
    model: str | Path | RewardSource,
    *,
    shapes: Sequence[Shape] = (),
    unscored: float | None = None,
    **options: Any,
) -> Callable[..., Awaitable[float | list[float]]]:
    """Return a coroutine function of a sample, or with `--group-rm` of the samples of a prompt.

    A prompt that a chat template has rendered is taken apart into its turns. Shapes find the label as the
    column `label`, and what the sample's metadata has under its own names.

    Args:
        model: A directory, a server's address, or a function of comparisons.
        shapes: What is done to the raw rewards, one after the other; see `basereward.integrations.shaping`.
        unscored: What a sample gets that can't be scored; None raises the error.
        options: Of `reward_source`, such as `device`, `key`.
    """
    source = reward_source(model, **options)

    async def rewards(args: Any, sample: Any, **_: Any) -> float | list[float]:
        samples = sample if isinstance(sample, list) else [sample]
        found = await asyncio.to_thread(_rewards, source, shapes, samples, unscored)
        return found if isinstance(sample, list) else found[0]

    return rewards


def _rewards(
    source: RewardSource, shapes: Sequence[Shape], samples: Sequence[Any], unscored: float | None
) -> list[float]:
    images = [_images(sample) for sample in samples]
    asked = [
        unrendered(sample.prompt, sample.response, has_images=bool(own))
        if isinstance(sample.prompt, str)
        else (sample.prompt, sample.response)
        for sample, own in zip(samples, images, strict=True)
    ]
    names = {name for sample in samples for name in sample.metadata or ()}
    columns = {name: [(sample.metadata or {}).get(name) for sample in samples] for name in names}
    try:
        _, shaped = shaped_rewards(
            source,
            shapes,
            [prompt for prompt, _ in asked],
            [text for _, text in asked],
            images=images,
            lengths=[sample.response_length for sample in samples],
            columns={**columns, "label": [sample.label for sample in samples]},
        )
    except DataError:
        if unscored is None:
            raise
        return [unscored] * len(samples)
    if unscored is None and None in shaped:
        raise DataError(
            f"sample {shaped.index(None)} of {len(samples)} can't be scored; `unscored` says what such get"
        )
    return [unscored if reward is None else reward for reward in shaped]  # type: ignore[misc]  # not both


def _images(sample: Any) -> list[object]:
    return list((sample.multimodal_inputs or {}).get("images") or ())
