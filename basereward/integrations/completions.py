"""What policies wrote, as comparisons, and what they get for it; every stack's adapter goes through here.

Shapes: N completions of a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from basereward.comparison import PLACEHOLDER, Comparison
from basereward.data.rendered_chat import IMAGE, continued
from basereward.errors import DataError
from basereward.integrations.reward_source import RewardSource
from basereward.integrations.shaping import Rollouts, Shape, apply


def shaped_rewards(
    source: RewardSource,
    shapes: Sequence[Shape],
    prompts: Sequence[Any],
    texts: Sequence[str],
    *,
    images: Sequence[Sequence[object]],
    lengths: Sequence[int],
    columns: Mapping[str, Any],
) -> tuple[list[float | None], list[float | None]]:
    """Return rewards [N] as the model gives them, and [N] after shaping; None where there is none.

    Completions of one prompt that stand side by side are scored together.

    Args:
        source: Of the rewards.
        shapes: What is done to them, one after the other.
        prompts: [N] texts or messages.
        texts: [N] completions.
        images: [N] of each prompt, for its `<image>` places; not looked at where the prompt has its own.
        lengths: [N] of the completions in tokens of the policy.
        columns: Other columns of the data set by name, each [N].

    Raises:
        DataError: When no completion at all could be scored, which is no matter of a single one.
    """
    groups = _groups(prompts)
    raw = _raw(source, prompts, texts, images, groups)
    return raw, apply(shapes, raw, Rollouts(texts, groups, lengths, columns))


def single_reward(
    source: RewardSource,
    shapes: Sequence[Shape],
    prompt: Any,
    text: str,
    *,
    images: Sequence[object] = (),
    num_tokens: int = 0,
    row: Mapping[str, Any],
    unscored: float | None = None,
) -> tuple[float | None, float]:
    """Return a completion's reward as the model gives it, None if it doesn't, and after shaping.

    Args:
        source: Of the reward.
        shapes: What is done to it.
        prompt: A text or messages.
        text: The completion.
        images: As for `shaped_rewards`.
        num_tokens: Of the completion.
        row: What else belongs to it, which shapes may read.
        unscored: What a completion gets that can't be scored; None raises the error.

    Raises:
        DataError: When it can't be scored.
    """
    columns = {name: [value] for name, value in row.items()}
    try:
        if not text.strip():
            raise DataError("the completion is empty, so it can't be scored; `unscored` says what it gets")
        [raw], [reward] = shaped_rewards(
            source, shapes, [prompt], [text], images=[images], lengths=[num_tokens], columns=columns
        )
    except DataError:
        if unscored is None:
            raise
        return None, unscored
    if reward is None:
        raise DataError("a shape left the completion without a reward")
    return raw, reward


def completion_text(completion: str | Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a completion: a text, or messages of which the last is the answer."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or ())


def images_of(columns: Mapping[str, Any], num: int) -> list[Sequence[object]]:
    """Return the images of each of N rows, from the columns `images` or `image`."""
    if (several := columns.get("images")) is not None:
        return [images or () for images in several]
    if (single := columns.get("image")) is not None:
        return [() if image is None else (image,) for image in single]
    return [()] * num


def unrendered(prompt: str, response: str, *, has_images: bool) -> tuple[Any, str]:
    """Return messages and response of a prompt that a chat template has rendered, or of a plain one.

    What stands for images in the template's text becomes `<image>`.

    Raises:
        DataError: When it can't be told where the response begins, or an image is missing.
    """
    turns, answer = continued(prompt, response)
    if not has_images and any(IMAGE.search(turn.text) for turn in turns):
        raise DataError("the prompt has a place for an image, and no image came with it", field="images")
    return [{"role": turn.role, "content": IMAGE.sub(PLACEHOLDER, turn.text)} for turn in turns], answer


def _raw(
    source: RewardSource,
    prompts: Sequence[Any],
    texts: Sequence[str],
    images: Sequence[Sequence[object]],
    groups: Sequence[int],
) -> list[float | None]:
    members: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        if texts[number].strip():
            members.setdefault(group, []).append(number)
    comparisons: list[Comparison] = []
    numbers: list[list[int]] = []
    errors: list[DataError] = []
    for own in members.values():
        prompt = prompts[own[0]]
        beside = () if _has_images(prompt) else images[own[0]]
        try:
            comparisons.append(Comparison(prompt, [texts[number] for number in own], images=beside))
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


def _groups(prompts: Sequence[Any]) -> list[int]:
    """Return the number of each completion's prompt; trainers put the completions of one side by side."""
    groups: list[int] = []
    for number, prompt in enumerate(prompts):
        is_same = number > 0 and prompt == prompts[number - 1]
        groups.append(groups[-1] if is_same else groups[-1] + 1 if groups else 0)
    return groups


def _has_images(prompt: Any) -> bool:
    return not isinstance(prompt, str) and any(
        part.get("type") == "image" and part.get("image") is not None
        for message in prompt
        if not isinstance(message["content"], str)
        for part in message["content"]
    )
