"""Conversations that come as one text, rendered by some chat template, and where their response begins.

RL pipelines send such texts. In them a turn that a policy made up looks like a turn that was there, so a text
is taken apart only where that can't matter: what follows a prompt that came beside it is the response, all of
it; and without one, the text must have a single turn of the assistant, its last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from basereward.serving.problems import Problem


@dataclass(frozen=True)
class Turn:
    """Who speaks, and what; `is_open` where the text ends before the turn does."""

    role: str
    text: str
    is_open: bool


FORMATS = (
    # ChatML: Qwen, SmolLM, InternLM and others
    (r"<\|im_start\|>(\w+)\n", r"<\|im_end\|>"),
    # Llama 3 and 4
    (r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n", r"<\|eot_id\|>"),
    (r"<\|header_start\|>(\w+)<\|header_end\|>\n\n", r"<\|eot\|>"),
    # Gemma
    (r"<start_of_turn>(\w+)\n", r"<end_of_turn>"),
)
"""How a turn begins, with its role, and how it ends."""

BEGINNINGS = re.compile(r"(?:<\|begin_of_text\|>|<\|endoftext\|>|<bos>|<s>|<pad>|\s)*")
"""What a tokenizer puts before the first turn, padding included."""

ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eot|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<eos>",
    "</s>",
    "<pad>",
)
"""What ends a response and fills the row behind it."""

IMAGE = re.compile(
    r"(?:<\|vision_start\|>)?(?:<\|image_pad\|>)+(?:<\|vision_end\|>)?"
    r"|(?:<img>)?(?:<IMG_CONTEXT>)+(?:</img>)?"
    r"|(?:<start_of_image>)?(?:<image_soft_token>)+(?:<end_of_image>)?|<start_of_image>"
    r"|<\|image\|>|\[IMG\]"
)
"""What stands for an image in rendered texts, as one token or as many."""


def turns(text: str) -> list[Turn] | None:
    """Return the turns of a rendered conversation; None for a text that is none.

    Raises:
        Problem: When there is text outside the turns.
    """
    found_format = next((form for form in FORMATS if re.search(form[0], text)), None)
    if found_format is None:
        return None
    start, end = found_format
    pattern = re.compile(rf"{start}(.*?)(?:({end})\s*|\Z)", re.DOTALL)
    found = []
    place = BEGINNINGS.match(text).end()  # type: ignore[union-attr]  # it matches nothing too
    while place < len(text):
        match = pattern.match(text, place)
        if match is None:
            if BEGINNINGS.fullmatch(text, place):
                break
            raise Problem("response_not_separable")
        role = {"model": "assistant"}.get(match[1], match[1])
        found.append(Turn(role, match[2], match[3] is None))
        place = match.end()
    return found


def split(text: str, prompt: str) -> tuple[list[Turn], str]:
    """Return the turns of a prompt and the response to it, of the text of both and that of the prompt.

    Raises:
        Problem: When the prompt doesn't end where a response begins.
    """
    if not prompt or not text.startswith(prompt):
        return conversation(text)
    return continued(prompt, text[len(prompt) :])


def continued(prompt: str, response: str) -> tuple[list[Turn], str]:
    """Return the turns of a prompt and the response to it, whatever that looks like.

    Raises:
        Problem: When the prompt is a conversation that doesn't end where a response begins.
    """
    before = turns(prompt)
    response = without_end(response)
    if before is None:
        return [Turn("user", prompt, False)], response
    *asked, last = before
    if last.role == "assistant" and last.is_open:  # what a template begins the response with belongs to it
        return asked, last.text + response
    if last.is_open:
        raise Problem("response_not_separable")
    return before, response


def conversation(text: str) -> tuple[list[Turn], str]:
    """Return the prompt's turns and the response of a whole conversation.

    Raises:
        Problem: When it has not one turn of the assistant, or that isn't the last.
    """
    found = turns(text)
    if found is None or [turn.role for turn in found].count("assistant") != 1:
        raise Problem("response_not_separable")
    *asked, last = found
    if last.role != "assistant":
        raise Problem("response_not_separable")
    return asked, without_end(last.text)


def without_end(response: str) -> str:
    """Return a response without the tokens that end it and those that fill the row behind it."""
    # No regular expression: one that is anchored at the end alone takes time with the square of their number.
    while (trimmed := response.rstrip()).endswith(ENDS):
        response = trimmed[: trimmed.rindex("<")]
    return response
