"""Fields that many formats share: texts, turns of conversations, ratings, images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from basereward.data.reading.row import Row
from basereward.errors import DataError, shown
from basereward.media.limits import is_number
from basereward.message import (
    IGNORED_MESSAGE_KEYS,
    MESSAGE_KEYS,
    PLACEHOLDER,
    TEMPLATE_KEYS,
    VIDEO_PLACEHOLDER,
    is_filled,
    refuse_unread,
)
from basereward.storage.reading import parse_json

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "system": "system",
    "observation": "tool",
    "tool_response": "tool",
    "tool": "tool",
}
"""The roles of our format by the names that other formats give them."""

CALLERS = ("function_call", "tool_call")
"""Speakers whose text is the JSON of a call, or of a list of calls."""

TURN_KEYS = frozenset(("from", "value")) | MESSAGE_KEYS


def text_of(row: Mapping[str, Any], field: str) -> str:
    """Return a text of a row.

    Raises:
        DataError: When it is missing, or no text.
    """
    value = row.get(field)
    if value is None:
        raise DataError("is missing", field=field)
    if not isinstance(value, str):
        raise DataError(f"must be a text, not a {type(value).__name__}", field=field)
    return value


def object_of(row: Row, field: str) -> Mapping[str, Any]:
    """Return an object of a row, which some formats hold as JSON text.

    Raises:
        DataError: When it is missing, or none.
    """
    value = parsed_json(row.get(field), field)
    if value is None:
        raise DataError("is missing", field=field)
    if not isinstance(value, Mapping):
        raise DataError(f"must be an object, not a {type(value).__name__}", field=field)
    return value


def parsed_json(value: Any, field: str) -> Any:
    """Return a value, parsed if it is JSON text.

    Raises:
        DataError: When it is a text that is not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        raise DataError(f"is not the JSON text that it should be: {error}", field=field) from error


def refuse_conversation_text(text: str, field: str) -> None:
    """Refuse a conversation that is written as JSON text, which would be read as words.

    Raises:
        DataError: When the text is the JSON of a list of messages.
    """
    if not text.lstrip().startswith("[") or ('"role"' not in text and '"from"' not in text):
        return
    try:
        turns = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(turns, list) and all(
        isinstance(turn, Mapping) and ("role" in turn or {"from", "value"} <= turn.keys()) for turn in turns
    ):
        raise DataError("is a conversation as JSON text; store it as a list of messages", field=field)


def number_of(value: Any) -> float | None:
    """Return a number that may be written as text; None if it is not a number, such as "N/A"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def turns_of(value: Any, field: str) -> list[dict[str, Any]]:
    """Return the turns of a conversation as messages.

    Args:
        value: A list of `{"from", "value"}` or `{"role", "content"}`; where no speaker is named, user and
            assistant take turns.
        field: The row's field, for the error.

    Raises:
        DataError: When it is none.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise DataError("a list of turns is needed", field=field)
    return [turn_of(turn, field, "assistant" if at % 2 else "user") for at, turn in enumerate(value)]


def turn_of(turn: Any, field: str, speaker: str) -> dict[str, Any]:
    """Return one turn as a message.

    Args:
        turn: `{"from", "value"}`, `{"role", "content"}` or a text.
        field: The row's field, for the error.
        speaker: Who speaks where the turn doesn't say.

    Raises:
        DataError: When it is none.
    """
    if isinstance(turn, str):
        return {"role": speaker, "content": turn}
    if not isinstance(turn, Mapping):
        raise DataError(f"a turn is an object, not a {type(turn).__name__}", field=field)
    refuse_unread(turn, TURN_KEYS, IGNORED_MESSAGE_KEYS, "a turn", field)
    role = turn.get("from") or turn.get("role") or speaker
    content = turn.get("value") if turn.get("value") is not None else turn.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise DataError(f"unknown speaker {role!r:.40}; speakers: {', '.join(ROLES)}", field=field)
    given = {key: turn[key] for key in TEMPLATE_KEYS if is_filled(turn.get(key))}
    if role in CALLERS:
        if given or not isinstance(content, str):
            raise DataError(f"a turn of {role} is the JSON text of a call, and has nothing else", field=field)
        return {"role": "assistant", "content": "", "tool_calls": _calls(content, field)}
    if not isinstance(content, str | list) and not (content is None and "tool_calls" in given):
        raise DataError("a turn has a text as 'value' or 'content'", field=field)
    return {"role": ROLES[role], "content": content, **given}


def _calls(text: str, field: str) -> list[dict[str, Any]]:
    """Return the calls of JSON text as chat templates take them."""
    calls = parsed_json(text, field)
    entries = calls if isinstance(calls, list) else [calls]
    if not entries or not all(
        isinstance(call, Mapping) and {"name", "arguments"} == set(call) for call in entries
    ):
        raise DataError("a call is the JSON of an object with 'name' and 'arguments'", field=field)
    return [{"type": "function", "function": dict(call)} for call in entries]


def answer_of(value: Any, field: str) -> str:
    """Return a response, which may be a text, a turn of the assistant, or a list of one such turn.

    Raises:
        DataError: When it is none.
    """
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise DataError(f"must be one turn, not {len(value)}", field=field)
        value = value[0]
    if value is None:
        raise DataError("is missing", field=field)
    turn = turn_of(value, field, "assistant")
    if turn["role"] != "assistant":
        raise DataError(f"must be a turn of the assistant, not of {turn['role']}", field=field)
    if others := [key for key in turn if key not in ("role", "content")]:
        raise DataError(
            f"a response is a text; its {', '.join(map(repr, others))} can't be scored", field=field
        )
    if not isinstance(turn["content"], str):
        raise DataError("a response may hold text only", field=field)
    return str(turn["content"])


def media_of(row: Row, name: Literal["image", "video"]) -> list[Any]:
    """Return the images or videos of a row that has them as `images` or as `image`, one or a list.

    Raises:
        DataError: When it has both.
    """
    one, several = row.get(name), row.get(f"{name}s")
    if is_filled(one) and is_filled(several):
        raise DataError(f"give either {name} or {name}s", field=name)
    filled = one if is_filled(one) else several
    return as_list(filled) if is_filled(filled) else []


def tools_of(row: Row) -> list[Any]:
    """Return the tools of a row; a bare function becomes one of type "function", as chat templates take it.

    Raises:
        DataError: When they are no list of objects, nor its JSON text.
    """
    if not is_filled(row.get("tools")):
        return []
    tools = parsed_json(row["tools"], "tools")
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, Mapping) for tool in tools):
        raise DataError("a list of objects is needed, or its JSON text", field="tools")
    return [
        dict(tool) if "type" in tool or "name" not in tool else {"type": "function", "function": dict(tool)}
        for tool in tools
    ]


def margin_ratings(row: Row) -> Row:
    """Return the ratings (margin, 0) of a row that has a margin.

    Raises:
        DataError: When it is no finite number >= 0.
    """
    margin = row.get("margin")
    if not is_filled(margin):
        return {}
    if not is_number(margin) or margin < 0:
        raise DataError(f"a finite number >= 0 is needed, not {shown(margin)}", field="margin")
    return {"ratings": [margin, 0]}


def single_column(row: Row, *names: str) -> str:
    """Return the name of the column that a row has, of some of which it may have one.

    Raises:
        DataError: When it has none of them, or several.
    """
    filled = [name for name in names if is_filled(row.get(name))]
    if not filled:
        raise DataError(
            "is missing" + (f", as are {', '.join(names[1:])}" if names[1:] else ""), field=names[0]
        )
    if len(filled) > 1:
        raise DataError(f"give either {filled[0]} or {filled[1]}", field=filled[1])
    return filled[0]


def as_list(value: Any) -> list[Any]:
    """Return a list's items, one thing as a list of it, and nothing for None."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def without_marks(text: str, count: int, mark: str = PLACEHOLDER) -> str:
    """Return a prompt without the marks of images, unless there are as many as images to put there.

    Where there is no image at all the marks stay, for the row to be refused.
    """
    if count == 0 or text.count(mark) == count:
        return text
    return text.replace(mark + "\n", "").replace(mark, "").strip()


def prompt_fields(question: str, images: Sequence[Any], videos: Sequence[Any] = ()) -> Row:
    """Return prompt, images and videos of a row whose marks can't be relied on."""
    prompt = without_marks(question, len(images))
    return {
        "prompt": without_marks(prompt, len(videos), VIDEO_PLACEHOLDER),
        "images": list(images),
        "videos": list(videos),
    }


def records(value: Any, field: str) -> list[Mapping[str, Any]]:
    """Return a list of objects, which `datasets` may have turned into an object of lists.

    Raises:
        DataError: When it is neither.
    """
    if isinstance(value, Mapping):
        columns = {name: column for name, column in value.items() if isinstance(column, list | tuple)}
        if not columns or len(columns) < len(value) or len({len(column) for column in columns.values()}) > 1:
            raise DataError("must be a list of objects, or an object of lists of one length", field=field)
        names = list(columns)
        return [dict(zip(names, entry, strict=True)) for entry in zip(*columns.values(), strict=True)]
    if not isinstance(value, list | tuple) or not all(isinstance(entry, Mapping) for entry in value):
        raise DataError("must be a list of objects", field=field)
    return list(value)


def rated(responses: Sequence[str], ratings: Sequence[float | None]) -> Row:
    """Return the responses that have a rating, each text once with the mean of its ratings.

    Raises:
        DataError: When fewer than two are left.
    """
    ratings_of: dict[str, list[float]] = {}
    for response, rating in zip(responses, ratings, strict=True):
        if rating is not None and response.strip():
            ratings_of.setdefault(response, []).append(rating)
    if len(ratings_of) < 2:
        raise DataError("fewer than two different responses have a rating", field="responses")
    return {
        "responses": list(ratings_of),
        "ratings": [sum(values) / len(values) for values in ratings_of.values()],
    }


def plain(row: Row, *fields: str) -> Row:
    """Return those of a row's fields that are filled, for `meta`."""
    return {field: row[field] for field in fields if row.get(field) not in (None, "")}


def name_of(row: Row, *fields: str) -> str:
    """Return the first of a row's fields that names it; nothing where none does."""
    return next((str(row[field]) for field in fields if isinstance(row.get(field), str | int)), "")
