"""Score completions of a policy, for the integrations of all trainers.

Shapes: N completions of a call.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Unpack

from basereward.backbones.opened_turn import whole_turn
from basereward.comparison import Comparison
from basereward.data.columns import IGNORED, is_measure, is_part_of_question
from basereward.data.fields import tools_of
from basereward.data.rendered_chat import IMAGE, continued
from basereward.errors import ColumnWarning, DataError
from basereward.integrations.reward_source import RewardSource, SourceOptions, reward_source
from basereward.integrations.shaping import Rollouts, Shape, apply
from basereward.media.image import Image
from basereward.message import IGNORED_MESSAGE_KEYS, PLACEHOLDER, is_filled

UNKNOWN = "-"
"""Stands for the responses while prompts are compared."""

ASSISTANT = "assistant"

READ_COLUMNS = frozenset(("image", "images", "tools", "turn_opening"))
"""Columns that are a part of the question or the answer and are read."""

HARMLESS_COLUMNS = IGNORED | {
    *("prompt", "prompts", "completion", "completions", "completion_ids", "messages", "response_token_ids"),
    *("trainer_state", "log_extra", "log_metric", "finish_reason", "is_truncated", "request_id"),
    *("answer", "solution", "label", "ground_truth", "question", "problem"),
}
"""Columns of trainers and of verifiable data without which a prompt means the same."""


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
        self._warned: set[str] = set()

    def score(
        self,
        prompts: Sequence[Any],
        texts: Sequence[str],
        *,
        images: Sequence[Sequence[object]],
        lengths: Sequence[int],
        columns: Mapping[str, Any],
        prompt_columns: Collection[str] = (),
    ) -> tuple[list[float | None], list[float | None]]:
        """Return raw and shaped rewards [N]; None for completions without one, whatever `unscored` is.

        Completions of one prompt, its images included, are scored together. One that can't be scored leaves
        the others theirs.

        Args:
            prompts: [N] texts or messages, or the error of one that can't be read. Texts may be rendered by a
                chat template of a known form.
            texts: [N] completions. Where the policy's chat template has begun the answer, as with "<think>",
                they are the rest of it; its beginning may be in a column `turn_opening`.
            images: [N] of each prompt, for its `<image>` places. Where the prompt has images of its own,
                these must be among them.
            lengths: [N] of the completions in tokens of the policy.
            columns: Other columns of the data set by name, each [N]. `tools` go to the chat template
                where the prompt is messages; a completion whose row fills another part of the question,
                such as `system`, isn't scored. There is one warning for each other column of texts that is
                neither read, by a shape either, nor one of `HARMLESS_COLUMNS`.
            prompt_columns: Names of columns that `prompts` were read from.

        Raises:
            DataError: When no completion at all could be scored, so that no single one is at fault.
        """
        prompts = _with_columns(prompts, columns, prompt_columns)
        # A text has the tools that it was rendered with.
        tools = [
            None if isinstance(prompt, str) else listed
            for prompt, listed in zip(prompts, _column(columns, "tools", len(texts)), strict=True)
        ]
        read = [_read(*each) for each in zip(prompts, texts, images, strict=True)]
        openings = _column(columns, "turn_opening", len(texts))
        prompts = [prompt for prompt, _ in read]
        texts = [whole_turn(text, opening) for (_, text), opening in zip(read, openings, strict=True)]
        asked = _asked(prompts, images, tools)
        groups = _groups(asked)
        raw = _raw(self.source, asked, texts, groups)
        seen = _SeenColumns(columns)
        shaped = apply(self.shapes, raw, Rollouts(texts, groups, lengths, seen))
        self._warn_of_unread(columns, {*prompt_columns, *seen.names})
        return raw, shaped

    def _warn_of_unread(self, columns: Mapping[str, Any], read: Collection[str]) -> None:
        silent = {*read, *READ_COLUMNS, *HARMLESS_COLUMNS, *self._warned}
        for name, values in columns.items():
            if name in silent or is_measure(name) or is_part_of_question(name):
                continue
            if not isinstance(values, Sequence):
                continue
            if any(is_filled(value) and not isinstance(value, int | float) for value in values):
                self._warned.add(name)
                warnings.warn(f"the column {name!r} is not read", ColumnWarning, stacklevel=4)

    def score_one(
        self,
        prompt: Any,
        text: str,
        *,
        images: Sequence[object] = (),
        num_tokens: int = 0,
        row: Mapping[str, Any],
        prompt_columns: Collection[str] = (),
    ) -> tuple[float | None, float]:
        """Return a completion's raw reward, None if it has none, and its shaped one.

        Args:
            prompt: A text or messages.
            text: The completion.
            images: As for `score`.
            num_tokens: Of the completion.
            row: The other fields of its row, for shapes.
            prompt_columns: As for `score`.

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
                [prompt],
                [text],
                images=[images],
                lengths=[num_tokens],
                columns=columns,
                prompt_columns=prompt_columns,
            )
        except DataError:
            if self.unscored is None:
                raise
            return None, self.unscored
        if reward is None:
            raise DataError("a shape left the completion without a reward")
        return raw, reward


def completion_text(completion: str | Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a completion: a text, or messages of which the last one is scored.

    It is empty, and then not scored, where that message has none, such as one that only calls a tool, and
    where it isn't the assistant's.
    """
    if isinstance(completion, str):
        return completion
    last = completion[-1] if completion else {}
    content = last.get("content") if last.get("role", ASSISTANT) == ASSISTANT else ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or ())


def answered(prompt: Any, completion: str | Sequence[Any]) -> Any:
    """Return a prompt, or the error of a completion whose last message is more than a text of the assistant.

    What a tool or the user says is no answer. Its calls of tools, reasoning, or images can't be scored;
    without them it would be another answer.
    """
    last = completion[-1] if completion and not isinstance(completion, str) else None
    if isinstance(prompt, DataError) or not isinstance(last, Mapping):
        return prompt
    if (role := last.get("role", ASSISTANT)) != ASSISTANT:
        return DataError(
            f"a completion ends in a message of the assistant, not of {role!r}", field="completion"
        )
    for key, value in last.items():
        if key not in ("role", "content") and key not in IGNORED_MESSAGE_KEYS and is_filled(value):
            return DataError(f"a completion is a text; its {key!r} can't be scored", field="completion")
    content = last.get("content")
    parts = () if content is None or isinstance(content, str) else content
    if any(not isinstance(part, Mapping) or part.get("type", "text") != "text" for part in parts):
        return DataError("a completion is a text; it can't hold anything else", field="completion")
    return prompt


def images_of(columns: Mapping[str, Any], num: int) -> list[Sequence[object]]:
    """Return the images of each of N rows, from the columns `images` or `image`."""
    if (several := columns.get("images")) is not None:
        return [listed(images) for images in several]
    if (single := columns.get("image")) is not None:
        return [() if image is None else (image,) for image in single]
    return [()] * num


def listed(images: Any) -> list[object]:
    """Return the images of a row as a list, whatever holds them; a row without any has none."""
    if images is None:
        return []
    if isinstance(images, str | bytes | bytearray | memoryview | Mapping):
        return [images]
    try:
        return list(images)
    except TypeError:  # one image
        return [images]


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


def _column(columns: Mapping[str, Any], name: str, num: int) -> Sequence[Any]:
    """Return a column [N], of None where there is none."""
    values = columns.get(name)
    return [None] * num if values is None or len(values) == 0 else values


def _read(prompt: Any, text: str, images: Sequence[object]) -> tuple[Any, str]:
    """Return a prompt and its completion, of a text that may be rendered the messages or the error."""
    if not isinstance(prompt, str):
        return prompt, text
    try:
        return unrendered(prompt, text, has_images=bool(images))
    except DataError as error:
        return error, text


class _SeenColumns(Mapping[str, Sequence[Any]]):
    """Columns, and the names of those that were read."""

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self.columns = columns
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Sequence[Any]:
        values = self.columns[name]
        self.names.add(name)
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


def _with_columns(prompts: Sequence[Any], columns: Mapping[str, Any], read: Collection[str]) -> list[Any]:
    """Return the prompts, or the error of each whose row has a part of the question that isn't read."""
    checked = list(prompts)
    filled = {
        name: values
        for name, values in columns.items()
        if values is not None and name not in READ_COLUMNS and name not in read and is_part_of_question(name)
    }
    if columns.get("images") is not None and columns.get("image") is not None:
        filled["image"] = [
            one if is_filled(several) else None
            for one, several in zip(columns["image"], columns["images"], strict=True)
        ]
    for name, values in filled.items():
        for number, value in enumerate(values):
            if is_filled(value) and not isinstance(value, bool):
                checked[number] = DataError("is a column of the question that isn't read", field=name)
    return checked


def _asked(
    prompts: Sequence[Any], images: Sequence[Sequence[object]], tools: Sequence[Any]
) -> list[Comparison | DataError]:
    """Return each prompt with its images, in a comparison whose response is still to come."""
    opened: dict[int, Image] = {}  # by the source, since completions of one prompt share theirs

    def image_of(source: object) -> Image:
        if id(source) not in opened:
            opened[id(source)] = Image(source)
        return opened[id(source)]

    asked: list[Comparison | DataError] = []
    for prompt, separate, callable_tools in zip(prompts, images, tools, strict=True):
        try:
            if isinstance(prompt, DataError):
                raise prompt
            shown = [image_of(source) for source in separate]
            has_images = _has_images(prompt)
            comparison = Comparison(
                prompt,
                [UNKNOWN],
                images=[] if has_images else shown,
                tools=tools_of({"tools": callable_tools}),
            )
            if has_images:
                _refuse_others(shown, comparison.images)
            asked.append(comparison)
        except DataError as error:
            asked.append(error)
    return asked


def _refuse_others(separate: Sequence[Image], prompt_images: Sequence[Image]) -> None:
    """Raise DataError if one of a row's images isn't among those that its prompt has of its own."""
    left = list(prompt_images)
    for image in separate:
        place = next((place for place, each in enumerate(left) if _is_same(image, each)), None)
        if place is None:
            raise DataError(
                "the prompt has images of its own, and the row has others beside them; leave one of both out",
                field="images",
            )
        del left[place]


def _is_same(image: Image, other: Image) -> bool:
    """Tell whether two images have the same pixels, however they are encoded."""
    if image.source is other.source or image == other:
        return True
    one, two = image.open(), other.open()
    return one.size == two.size and one.tobytes() == two.tobytes()


def _groups(asked: Sequence[Comparison | DataError]) -> list[int]:
    """Return the number of each completion's prompt; one that can't be read is like no other."""
    numbers: dict[Hashable, int] = {}
    groups = []
    for place, comparison in enumerate(asked):
        key: Hashable = place
        if isinstance(comparison, Comparison):
            with suppress(DataError):  # an image that can't be read
                key = comparison.prompt_identity()
        groups.append(numbers.setdefault(key, len(numbers)))
    return groups


def _raw(
    source: RewardSource,
    asked: Sequence[Comparison | DataError],
    texts: Sequence[str],
    groups: Sequence[int],
) -> list[float | None]:
    members: dict[int, list[int]] = {}
    errors: list[DataError] = []
    for number, (comparison, group) in enumerate(zip(asked, groups, strict=True)):
        if isinstance(comparison, DataError):
            errors.append(comparison)
        elif texts[number].strip():
            members.setdefault(group, []).append(number)
    rewards: list[float | None] = [None] * len(texts)
    waiting = list(members.values())
    while waiting:
        again: list[list[int]] = []
        for numbers, result in zip(waiting, source(_comparisons(asked, texts, waiting)), strict=True):
            if not isinstance(result, DataError):
                for number, reward in zip(numbers, result, strict=True):
                    rewards[number] = reward
            elif len(numbers) > 1:  # one of them is at fault: each is tried alone
                again += [[number] for number in numbers]
            else:
                errors.append(result)
        waiting = again
    if errors and all(reward is None for reward in rewards):
        raise errors[0]
    return rewards


def _comparisons(
    asked: Sequence[Comparison | DataError], texts: Sequence[str], groups: Sequence[Sequence[int]]
) -> list[Comparison]:
    """Return a comparison of the completions of each group, by their numbers."""
    firsts = [asked[numbers[0]] for numbers in groups]
    return [
        first.replace(responses=[texts[number] for number in numbers])
        for first, numbers in zip(firsts, groups, strict=True)
        if isinstance(first, Comparison)
    ]


def _has_images(prompt: Any) -> bool:
    """Tell whether a prompt's messages have images of their own."""
    if isinstance(prompt, str | Mapping) or not isinstance(prompt, Iterable):
        return False
    contents = [message.get("content") for message in prompt if isinstance(message, Mapping)]
    return any(
        isinstance(part, Mapping) and part.get("type") == "image" and part.get("image") is not None
        for content in contents
        if not isinstance(content, str)
        for part in content or ()
    )
