"""Steps that drop empty, identical and overlong rows, and that unify the marks of images."""

from __future__ import annotations

import re

from basereward.comparison import Comparison
from basereward.data.curation.fingerprints import collapsed
from basereward.data.curation.step import Step, with_responses
from basereward.errors import DataError
from basereward.media.image import Image
from basereward.message import Part

SPELLINGS = re.compile(
    r"<image>|<\|?image_?\d*\|?>|<img>|</img>|<ImageHere>|<\|image_pad\|>|<\|vision_start\|>|<\|vision_end\|>"
    r"|<IMG_CONTEXT>|\[IMG\]",
    re.IGNORECASE,
)
"""Marks for images in the prompts of LLaVA, InternVL, InternLM-XComposer, Phi, Llama and Qwen data."""


class DropEmpty(Step):
    """Drop rows with a prompt of no text, image or video, or with a response that is too short.

    Args:
        min_characters: Characters that a response needs besides white space; one that has none at all is
            refused when it is read.
    """

    name = "drop-empty"

    def __init__(self, *, min_characters: int = 1) -> None:
        self.min_characters = min_characters

    def __call__(self, comparison: Comparison) -> Comparison | DataError:
        """Drop or keep."""
        has_media = comparison.images or comparison.videos
        if not has_media and not any(message.text.strip() for message in comparison.prompt):
            return DataError("empty prompt", field="prompt")
        for number, response in enumerate(comparison.responses):
            if len(response.strip()) < self.min_characters:
                return DataError(
                    f"short response: {len(response.strip())} characters, {self.min_characters} needed",
                    field=f"responses[{number}]",
                )
        return comparison


class DropIdentical(Step):
    """Keep the first of responses that differ in nothing but case and white space.

    A row is dropped when they are ranked differently, since it contradicts itself, and when one response is
    left of several.
    """

    name = "drop-identical"

    def __call__(self, comparison: Comparison) -> Comparison | DataError:
        """Drop, shorten or keep."""
        first: dict[str, int] = {}
        for number, response in enumerate(comparison.responses):
            other = first.setdefault(collapsed(response), number)
            if comparison.ranks is not None and comparison.ranks[other] != comparison.ranks[number]:
                return DataError(
                    f"identical but ranked differently: responses[{other}] and responses[{number}]",
                    field="responses",
                )
        if len(first) == len(comparison.responses):
            return comparison
        if len(first) == 1:
            return DataError("all responses identical", field="responses")
        return with_responses(comparison, list(first.values()))


class DropTooLong(Step):
    """Drop rows with more text or images than a bound.

    Args:
        max_prompt_characters: Of all messages together.
        max_response_characters: Of each response.
        max_images: Of the prompt.
    """

    name = "drop-too-long"

    def __init__(
        self,
        *,
        max_prompt_characters: int = 20_000,
        max_response_characters: int = 20_000,
        max_images: int = 16,
    ) -> None:
        self.max_prompt_characters = max_prompt_characters
        self.max_response_characters = max_response_characters
        self.max_images = max_images

    def __call__(self, comparison: Comparison) -> Comparison | DataError:
        """Drop or keep."""
        facts = [
            ("prompt", sum(len(message.text) for message in comparison.prompt), self.max_prompt_characters),
            ("images", len(comparison.images), self.max_images),
            *(
                (f"responses[{number}]", len(response), self.max_response_characters)
                for number, response in enumerate(comparison.responses)
            ),
        ]
        for field, value, limit in facts:
            if value > limit:
                unit = "images" if field == "images" else "characters"
                kind = "too many images" if field == "images" else f"long {field.partition('s[')[0]}"
                return DataError(f"{kind}: {value:,} {unit}, at most {limit:,}", field=field)
        return comparison


class Placeholders(Step):
    """Read other spellings of `<image>`, and take marks for images out of texts that show none.

    A row whose images stand before the text, for want of `<image>`, gets them to its marks if there are as
    many of one as of the other. All other marks, in prompts and responses, are removed with the line break
    that follows them: a tokenizer would take them for images.
    """

    name = "placeholders"

    def __call__(self, comparison: Comparison) -> Comparison:
        """Change or keep."""
        responses = [_without_marks(response) for response in comparison.responses]
        marks = sum(len(_marks(message.text)) for message in comparison.prompt)
        if marks:
            moves = marks == len(comparison.images) and _leads(comparison)
            waiting = iter(comparison.images)
            prompt = []
            for message in comparison.prompt:
                parts: list[Part] = []
                for part in message.content:
                    if isinstance(part, Image):
                        parts += [] if moves else [part]
                    elif not isinstance(part, str):
                        parts.append(part)
                    elif not moves:
                        parts.append(_without_marks(part))
                    else:
                        for number, text in enumerate(SPELLINGS.split(part)):
                            parts += [next(waiting)] if number else []
                            parts.append(text)
                prompt.append(message.with_content([part for part in parts if part != ""]))
            comparison = comparison.replace(prompt=prompt)
        changed = any(new != old for new, old in zip(responses, comparison.responses, strict=True))
        # A response that was nothing but a mark stays, for there is no empty response.
        if changed and all(response.strip() for response in responses):
            comparison = comparison.replace(responses=responses)
        return comparison


def _marks(text: str) -> list[str]:
    return [match.group() for match in SPELLINGS.finditer(text)]


def _without_marks(text: str) -> str:
    return re.sub(rf"(?:{SPELLINGS.pattern})\n?", "", text, flags=re.IGNORECASE)


def _leads(comparison: Comparison) -> bool:
    """Tell whether all images stand at the head of the first message that has one."""
    message = next((message for message in comparison.prompt if message.images), None)
    if message is None:
        return False
    head = message.content[: len(message.images)]
    return len(message.images) == len(comparison.images) and all(isinstance(part, Image) for part in head)
