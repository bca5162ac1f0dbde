"""Score completions of a policy, for the integrations of all trainers.

Shapes: N completions of a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from basereward.comparison import PLACEHOLDER, Comparison
from basereward.data.rendered_chat import IMAGE, continued
from basereward.errors import DataError
from basereward.integrations.reward_source import RewardSource, SourceOptions, reward_source
from basereward.integrations.shaping import Rollouts, Shape, apply


class ScorerOptions(SourceOptions, total=False):
    """The options of `CompletionScorer`, for functions that pass them on."""

    shapes: Sequence[Shape]
    unscored: float | None


class CompletionScorer:
    """Gives completions the rewards of a model, shaped.

    Args:
        model: The directory of a model or an ensemble, a server's address, or a function of comparisons.
        shapes: Applied to the raw rewards in their order; see `basereward.integrations.shaping`.
        unscored: The reward of a completion that can't be scored, for trainers that can't leave one out; None
            raises the error.
        options: As for `reward_source`, such as `device`, `key`.
    """

    def __init__(
        self,
        model: str | Path | RewardSource,
        *,
        shapes: Sequence[Shape] = (),
        unscored: float | None = None,
        **options: Unpack[SourceOptions],
    ) -> None:
        self.source = reward_source(model, **options)
        self.shapes = shapes
        self.unscored = unscored

    def score(
        self,
        prompts: Sequence[Any],
        texts: Sequence[str],
        *,
        images: Sequence[Sequence[object]],
        lengths: Sequence[int],
        columns: Mapping[str, Any],
    ) -> tuple[list[float | None], list[float | None]]:
        """Return raw and shaped rewards [N]; None for completions without one, whatever `unscored` is.

        Adjacent completions of one prompt are scored together.

        Args:
            prompts: [N] texts or messages.
            texts: [N] completions.
            images: [N] of each prompt, for its `<image>` places; ignored where the prompt has its own.
            lengths: [N] of the completions in tokens of the policy.
            columns: Other columns of the data set by name, each [N].

        Raises:
            DataError: When no completion at all could be scored, so that no single one is at fault.
        """
        groups = _groups(prompts)
        raw = _raw(self.source, prompts, texts, images, groups)
        return raw, apply(self.shapes, raw, Rollouts(texts, groups, lengths, columns))

    def score_one(
        self,
        prompt: Any,
        text: str,
        *,
        images: Sequence[object] = (),
        num_tokens: int = 0,
        row: Mapping[str, Any],
    ) -> tuple[float | None, float]:
        """Return a completion's raw reward, None if it has none, and its shaped one.

        Args:
            prompt: A text or messages.
            text: The completion.
            images: As for `score`.
            num_tokens: Of the completion.
            row: The other fields of its row, for shapes.

        Raises:
            DataError: When it can't be scored, and `unscored` is None.
        """
        columns = {name: [value] for name, value in row.items()}
        try:
            if not text.strip():
                raise DataError(
                    "the completion is empty, so it can't be scored; `unscored` says what it gets"
                )
            [raw], [reward] = self.score(
                [prompt], [text], images=[images], lengths=[num_tokens], columns=columns
            )
        except DataError:
            if self.unscored is None:
                raise
            return None, self.unscored
        if reward is None:
            raise DataError("a shape left the completion without a reward")
        return raw, reward


def completion_text(completion: str | Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a completion: a text, or messages of which the last one is scored."""
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

    Tokens of images in the template's text become `<image>`.

    Raises:
        DataError: When the beginning of the response is ambiguous, or an image is missing.
    """
    turns, text = continued(prompt, response)
    if not has_images and any(IMAGE.search(turn.text) for turn in turns):
        raise DataError("the prompt has a place for an image, and no image came with it", field="images")
    return [{"role": turn.role, "content": IMAGE.sub(PLACEHOLDER, turn.text)} for turn in turns], text


def _raw(
    source: RewardSource,
    prompts: Sequence[Any],
    texts: Sequence[str],
    images: Sequence[Sequence[object]],
    groups: Sequence[int],
) -> list[float | None]:
    members: dict[int, list[int]] = {}
    for number, prompt_number in enumerate(groups):
        if texts[number].strip():
            members.setdefault(prompt_number, []).append(number)
    comparisons: list[Comparison] = []
    numbers: list[list[int]] = []
    errors: list[DataError] = []
    for group in members.values():
        prompt = prompts[group[0]]
        separate = () if _has_images(prompt) else images[group[0]]
        try:
            comparisons.append(Comparison(prompt, [texts[number] for number in group], images=separate))
            numbers.append(group)
        except DataError as error:
            errors.append(error)
    rewards: list[float | None] = [None] * len(texts)
    for group, result in zip(numbers, source(comparisons) if comparisons else (), strict=True):
        if isinstance(result, DataError):
            errors.append(result)
            continue
        for number, reward in zip(group, result, strict=True):
            rewards[number] = reward
    if errors and len(errors) == len(members):
        raise errors[0]
    return rewards


def _groups(prompts: Sequence[Any]) -> list[int]:
    """Return the number of each completion's prompt; trainers hand over those of one prompt side by side."""
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
