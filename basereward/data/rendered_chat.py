"""Separate the response from a conversation that a chat template has rendered as one text.

RL pipelines send such texts. In them a turn that a policy made up looks like a turn that was there, so a text
is taken apart only where that can't matter: what follows a prompt that came beside it is the response, all of
it; and without one, the text must have a single turn of the assistant, its last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from basereward.errors import DataError


class NotSeparableError(DataError):
    """A rendered conversation whose response can't be separated from its prompt."""


class UnknownTemplateError(NotSeparableError):
    """A prompt that a chat template of no known form has rendered."""


@dataclass(frozen=True)
class Turn:
    """The role and the text of a turn; `is_open` where the text ends before the turn does."""

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
"""The beginning of a turn, with its role, and its end."""

BEGINNINGS = re.compile(r"(?:<\|begin_of_text\|>|<\|endoftext\|>|<bos>|<s>|<pad>|\s)*")
"""Tokens before the first turn, padding included."""

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
"""Tokens that end a response or pad the row behind it."""

ROLES = {"model": "assistant", "ipython": "tool"}
"""Roles of templates, and ours."""

DATES = re.compile(r"\ACutting Knowledge Date: [^\n]*\nToday Date: [^\n]*\n\n")
"""The lines that Llama 3's templates put before a system message, and put there again."""

MARKER = re.compile(
    r"<[|\uff5c][^<>|\uff5c\n]{1,64}[|\uff5c]>"  # <|user|>, <|start_of_role|>, DeepSeek's with wide bars
    r"|<\|\w{1,64}>|<\w{1,64}\|>|\[\|\w{1,64}\|\]"  # <|turn>, <turn|>, [|user|]
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS)\]|\[gMASK\]|<<SYS>>"
    r"|<(?:/?s|sop|eop|bos|eos|BOS|EOS|start_of_turn|end_of_turn|\u7528\u6237|AI)>"
    r"|<role>\w{1,64}</role>|\[BOS\]\w{1,64}\n"
    r"|<(?:reserved|extra_id|SPECIAL)_[0-9]+>"
)
"""What chat templates write between turns, and nobody in a question; but who asks about chat templates."""

ASKED = re.compile(
    r"(?:\A|\s)(?:USER|User|HUMAN|Human|### ?(?:Instruction|User|Human|Input)|GPT4 Correct User) ?:"
)
OPENED = re.compile(r"\s(?:ASSISTANT|Assistant|GPT|### ?(?:Response|Assistant)|GPT4 Correct Assistant) ?:\Z")
"""The labels of templates in plain words: of a question, and of the turn that is open, at the end."""

MAX_LABEL = 40
"""Characters of a label, and more."""

IMAGE = re.compile(
    r"(?:<\|vision_start\|>)?(?:<\|image_pad\|>)+(?:<\|vision_end\|>)?"
    r"|(?:<img>)?(?:<IMG_CONTEXT>)+(?:</img>)?"
    r"|(?:<start_of_image>)?(?:<image_soft_token>)+(?:<end_of_image>)?|<start_of_image>"
    r"|<\|image\|>|\[IMG\]"
)
"""The placeholder of an image in rendered texts, of one token or of many."""


def turns(text: str) -> list[Turn] | None:
    """Return the turns of a rendered conversation; None for a text that is none.

    Raises:
        NotSeparableError: When there is text outside the turns.
    """
    template = next((template for template in FORMATS if re.search(template[0], text)), None)
    if template is None:
        return None
    start, end = template
    pattern = re.compile(rf"{start}(.*?)(?:({end})\s*|\Z)", re.DOTALL)
    parsed = []
    beginning = BEGINNINGS.match(text)
    assert beginning is not None  # it matches the empty text too
    place = beginning.end()
    while place < len(text):
        match = pattern.match(text, place)
        if match is None:
            if BEGINNINGS.fullmatch(text, place):
                break
            raise NotSeparableError("has text outside its turns", field="prompt")
        parsed.append(Turn(ROLES.get(match[1], match[1]), match[2], match[3] is None))
        place = match.end()
    if parsed and parsed[0].role == "system" and (dates := DATES.match(parsed[0].text)):
        system = Turn("system", parsed[0].text[dates.end() :], parsed[0].is_open)
        parsed[:1] = [system] if system.text else []
    return parsed


def refuse_unknown_template(prompt: str) -> None:
    """Refuse a text that a chat template of no known form has rendered, instead of taking it for a question.

    Raises:
        UnknownTemplateError: Naming the marker that tells.
    """
    marker = MARKER.search(prompt)
    if marker is None and not _has_labels(prompt):
        return
    tells = repr(marker.group()) if marker else "the labels of turns"
    raise UnknownTemplateError(
        f"looks rendered by a chat template that isn't known: it has {tells}; give messages, or a prompt "
        "that no template has rendered",
        field="prompt",
    )


def _has_labels(prompt: str) -> bool:
    """Tell whether a text ends with the label of an open turn, after that of a question."""
    text = prompt.rstrip()
    # Two patterns, each of which reads the text once: one of both would read its rest at each question.
    opened = OPENED.search(text, max(0, len(text) - MAX_LABEL))
    return opened is not None and ASKED.search(text, 0, opened.start()) is not None


def split(text: str, prompt: str) -> tuple[list[Turn], str]:
    """Return the turns of a prompt and the response to it, of the text of both and that of the prompt.

    Raises:
        NotSeparableError: When the prompt doesn't end where a response begins.
    """
    if not prompt or not text.startswith(prompt):
        return conversation(text)
    return continued(prompt, text[len(prompt) :])


def continued(prompt: str, response: str) -> tuple[list[Turn], str]:
    """Return the turns of a prompt and the response to it; the response is not parsed for turns.

    Raises:
        NotSeparableError: When the prompt is a conversation that doesn't end where a response begins.
        UnknownTemplateError: When a template of no known form has rendered it.
    """
    before = turns(prompt)
    response = without_end(response)
    if before is None:
        refuse_unknown_template(prompt)
        return [Turn("user", prompt, False)], response
    *earlier, last = before
    if last.role == "assistant" and last.is_open:  # what a template begins the response with belongs to it
        return earlier, last.text + response
    if last.is_open:
        raise NotSeparableError("ends within a turn that is not the assistant's", field="prompt")
    return before, response


def conversation(text: str) -> tuple[list[Turn], str]:
    """Return the prompt's turns and the response of a whole conversation.

    Raises:
        NotSeparableError: When it has not one turn of the assistant, or that isn't the last.
    """
    parsed = turns(text)
    if parsed is None or [turn.role for turn in parsed].count("assistant") != 1:
        raise NotSeparableError("must end with the only turn of the assistant", field="prompt")
    *prompt, last = parsed
    if last.role != "assistant":
        raise NotSeparableError("must end with the only turn of the assistant", field="prompt")
    return prompt, without_end(last.text)


def without_end(response: str) -> str:
    """Return a response without the tokens that end it and those that fill the row behind it."""
    # No regular expression that is anchored at the end alone, and no copies: both take time with the square
    # of the number of ends.
    stop = length = len(response)
    while True:
        while length and response[length - 1].isspace():
            length -= 1
        if not response.endswith(ENDS, 0, length):
            return response[:stop]
        stop = length = response.rindex("<", 0, length)
