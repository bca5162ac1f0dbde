"""TRL's preference format: a chosen and a rejected response, with the prompt apart or at the head of both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from basereward.data.dataset import FileDataset
from basereward.data.fields import refuse_conversation_text
from basereward.data.pair_layouts import COMMON_COLUMNS, common_fields
from basereward.data.reading.row import Row
from basereward.errors import DataError
from basereward.message import (
    IGNORED_MESSAGE_KEYS,
    IGNORED_PART_KEYS,
    MESSAGE_KEYS,
    TEMPLATE_KEYS,
    TEXT_KEYS,
    is_filled,
    refuse_unread,
)

Turns: TypeAlias = "list[Mapping[str, Any]]"


class TRLDataset(FileDataset):
    """Rows of JSONL or Parquet in TRL's preference format; `chosen` is ranked before `rejected`.

    - Explicit prompt: `prompt`, `chosen` and `rejected`, each a text or a list of messages.
    - Implicit prompt: no `prompt`, and `chosen` and `rejected` are whole conversations or whole texts. Of
      conversations the prompt is the messages that both begin with. Of texts it is the longest beginning that
      both share, cut back to the end of a word, so that no response begins within a word; white space stays
      with the responses.
    - Images: `images`, a list, or `image`; paths start from the file, `{"bytes", "path"}` is read too. They
      fill the prompt's `{"type": "image"}` parts or `<image>` marks, or go before the first user message.
    - `tools` go to the chat template.
    - `margin`: by how much the chosen response is better, >= 0; it becomes the ratings (margin, 0).
    - `id`, `source` and `weight` as in our own format.
    """

    detected_by = ("chosen", "rejected")
    columns: Mapping[str, str] = {
        "prompt": "what both responses answer; without it, both begin with the prompt",
        "chosen": "the better response, or conversation",
        "rejected": "the worse response, or conversation",
        "messages": "the conversation of chosen once more, as some sets have it; any other is refused",
        **COMMON_COLUMNS,
    }

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        return trl_row(row)


def trl_row(row: Row) -> Row:
    """Return a preference row of TRL's in our own format.

    Raises:
        DataError: Naming the field that is missing or wrong.
    """
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            raise DataError("is missing", field=name)
    if is_filled(row.get("messages")) and row["messages"] != row["chosen"]:
        raise DataError("is not chosen, nor is it known to say nothing of the answer", field="messages")
    prompt, chosen, rejected = split(row.get("prompt"), row["chosen"], row["rejected"])
    return common_fields(row) | {"prompt": prompt, "responses": [chosen, rejected]}


def split(prompt: Any, chosen: Any, rejected: Any) -> tuple[Any, str, str]:
    """Return the prompt, the chosen and the rejected response of a row's fields of these names.

    Args:
        prompt: A text, messages, or None where the other two begin with it.
        chosen: A text, or messages.
        rejected: Likewise, of the same kind.

    Raises:
        DataError: When the three don't fit together, or one is a conversation as JSON text.
    """
    for name, value in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        if isinstance(value, str):
            refuse_conversation_text(value, name)
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is None:
            return split_texts(chosen, rejected)
        return prompt, chosen, rejected
    chosen, rejected = _turns(chosen, "chosen"), _turns(rejected, "rejected")
    start = _common_turns(chosen, rejected)
    if prompt is None:
        if not start:
            raise DataError(
                "is missing, and chosen and rejected begin with different messages", field="prompt"
            )
        prompt = chosen[:start]
    else:
        # Some sets give the prompt and repeat it, perhaps after a system message, in both conversations.
        repeated = [turn for turn in chosen[:start] if turn.get("role") != "assistant"]
        if repeated:
            if not _ends_with(repeated, prompt):
                raise DataError("is not the one that chosen and rejected begin with", field="prompt")
            prompt = chosen[:start]
        else:
            start = 0
    return prompt, _response(chosen[start:], "chosen"), _response(rejected[start:], "rejected")


def split_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Return the prompt that two texts begin with, and what follows in each; joined they are the texts again.

    Raises:
        DataError: When they don't begin with the same word, or are the same.
    """
    if chosen == rejected:
        raise DataError("is identical to chosen", field="rejected")
    # Both responses must keep a word, even where one text is the beginning of the other.
    limit = min(len(chosen.rstrip()), len(rejected.rstrip()))
    end = next((at for at in range(limit) if chosen[at] != rejected[at]), limit)
    if end == limit:
        end -= 1
    while end > 0 and not (
        chosen[end].isspace() and rejected[end].isspace() and not chosen[end - 1].isspace()
    ):
        end -= 1
    if end <= 0:
        raise DataError("is missing, and chosen and rejected don't begin with the same word", field="prompt")
    return chosen[:end], chosen[end:], rejected[end:]


def _turns(value: Any, name: str) -> Turns:
    if not isinstance(value, list):
        raise DataError("chosen and rejected must both be texts or both be lists of messages", field=name)
    for turn in value:
        if (
            not isinstance(turn, dict)
            or not isinstance(turn.get("role"), str)
            or (turn.get("content") is None and not turn.get("tool_calls"))
        ):
            raise DataError(f"a message is an object with 'role' and 'content', not {turn!r:.80}", field=name)
        refuse_unread(turn, MESSAGE_KEYS, IGNORED_MESSAGE_KEYS, "a message", name)
    if not value:
        raise DataError("the list of messages is empty", field=name)
    return value


def _common_turns(chosen: Turns, rejected: Turns) -> int:
    """Return how many messages both begin with; at least the last of each is its response."""
    limit = min(len(chosen), len(rejected)) - 1
    return next((at for at in range(limit) if not _is_same(chosen[at], rejected[at])), max(limit, 0))


def _is_same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return first == second or all(
        first.get(key) == second.get(key)
        for key in MESSAGE_KEYS
        if is_filled(first.get(key)) or is_filled(second.get(key))
    )


def _ends_with(turns: Turns, prompt: Any) -> bool:
    if isinstance(prompt, str):
        return _text(turns[-1]["content"], "prompt").strip() == prompt.strip()
    questions = [turn for turn in _turns(prompt, "prompt") if turn["role"] != "assistant"]
    return len(questions) <= len(turns) and all(
        map(_is_same, questions, turns[len(turns) - len(questions) :])
    )


def _response(turns: Turns, name: str) -> str:
    if [turn["role"] for turn in turns] != ["assistant"]:
        roles = [
            f"{turn['role']} with 'tool_calls'" if is_filled(turn.get("tool_calls")) else turn["role"]
            for turn in turns
        ]
        raise DataError(
            f"the response must be one assistant message, not {', '.join(roles) or 'none'}", field=name
        )
    if others := [
        key for key in turns[0].keys() - TEXT_KEYS if key in TEMPLATE_KEYS and is_filled(turns[0][key])
    ]:
        raise DataError(
            f"a response is a text; its {', '.join(map(repr, others))} can't be scored", field=name
        )
    return _text(turns[0]["content"], name)


def _text(content: Any, name: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise DataError(f"content is a text or a list of parts, not {content!r:.80}", field=name)
    for part in content:
        if isinstance(part, dict) and part.get("type") == "text":
            refuse_unread(part, ("type", "text"), IGNORED_PART_KEYS, "a content part", name)
    texts = [
        part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        for part in content
    ]
    if not all(isinstance(text, str) for text in texts):
        raise DataError("a response may hold text only", field=name)
    return "".join(text for text in texts if text is not None)
