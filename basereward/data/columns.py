"""Columns of rows: those that a format reads, and those without which a row means the same.

Any other column that has a value is refused by name. A list of what to refuse would be of no use: a row that
is read without its system message, its tools or an image under another name is a question that nobody asked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from basereward.data.reading.row import Row
from basereward.errors import DataError
from basereward.media.limits import is_number
from basereward.message import is_filled
from basereward.storage.reading import parse_json

IGNORED_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "name the row": (
        "id",
        "_id",
        "idx",
        "index",
        "row_id",
        "uid",
        "uuid",
        "hash",
        "prompt_id",
        "prompt_hash",
        "question_id",
        "conversation_id",
        "sample_id",
        "example_id",
        "__index_level_0__",
    ),
    "say where the row is from": (
        "source",
        "dataset",
        "dataset_name",
        "data_source",
        "ds_name",
        "origin",
        "origin_dataset",
        "origin_split",
        "split",
        "subset",
        "license",
        "version",
        "timestamp",
        "created_at",
        "date",
    ),
    "say what the row is about": (
        "category",
        "subcategory",
        "task",
        "task_type",
        "topic",
        "domain",
        "subject",
        "language",
        "lang",
        "difficulty",
        "tags",
    ),
    "say who wrote or judged the responses": (
        "model",
        "models",
        "chosen_model",
        "rejected_model",
        "generator",
        "judge",
        "annotator",
        "annotator_id",
    ),
    "measure responses whose order is given": (
        "score_chosen",
        "score_rejected",
        "chosen_score",
        "rejected_score",
        "chosen_rating",
        "rejected_rating",
        "chosen_avg_rating",
        "rejected_avg_rating",
    ),
    "explain the order, or comment on the row": (
        "chosen_reason",
        "rejected_reason",
        "rationale",
        "explanation",
        "comment",
        "comments",
        "note",
        "notes",
        "meta",
        "metadata",
    ),
}
"""Columns without which a row means the same, by the reason why."""

MEASURES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_rating", "rejected_rating"),
    ("chosen_avg_rating", "rejected_avg_rating"),
)
"""Columns that measure the better and the worse response."""

IGNORED = frozenset(name for names in IGNORED_COLUMNS.values() for name in names)

ANSWERED_COLUMNS = frozenset(
    (
        "prompt",
        "system",
        "system_prompt",
        "history",
        "instruction",
        "input",
        "question",
        "query",
        "messages",
        "conversations",
        "context",
        "tools",
        "image",
        "images",
        "image_path",
        "image_url",
        "img",
        "img_path",
        "pixel_values",
        "video",
        "videos",
        "audio",
        "audios",
        "chosen",
        "rejected",
        "response",
        "rejected_response",
        "margin",
        "weight",
    )
)
"""Columns that some format reads as the question, the responses or their order."""

QUESTION_WORDS = frozenset(
    (
        *("system", "history", "instruction", "query", "context", "document", "attachment", "files"),
        *("tool", "function"),
        *("image", "img", "pic", "picture", "photo", "pixel", "frame", "video", "audio"),
        *("media", "multimedia", "multimodal", "modal", "mm"),
    )
)
"""Words in the name of a column that is a part of the question beside its text."""

MEASURE_WORDS = frozenset(
    (
        *("id", "ids", "idx", "index", "uid", "uuid", "hash", "kwargs", "type"),
        *("num", "count", "length", "len", "size", "width", "height"),
    )
)
"""Words in the name of a column that says something of such a part, as `image_id` does, and isn't one."""


def is_measure(name: str) -> bool:
    """Tell by its name whether a column says something of a part of a row, and isn't one."""
    return not MEASURE_WORDS.isdisjoint(_words(name))


def is_part_of_question(name: str) -> bool:
    """Tell by its name whether a column is a part of the question beside its text, such as an image."""
    return not is_measure(name) and any(
        word in QUESTION_WORDS or word.removesuffix("s") in QUESTION_WORDS or word == "queries"
        for word in _words(name)
    )


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())


def unread_columns(row: Row, read: Collection[str], ignored: Collection[str] = ()) -> list[str]:
    """Return the filled columns of a row that are neither read nor known to say nothing of the answer.

    Of a column that is left out as a rule, such as `metadata`, a part of the question within is returned as
    `metadata.image`.
    """
    unread = []
    for name, value in row.items():
        if name in read or name in ignored or not is_filled(value):
            continue
        if name not in IGNORED:
            unread.append(name)
        elif within := _part_of_question_in(value):
            unread.append(f"{name}.{within}")
    return unread


def _part_of_question_in(value: Any) -> str:
    """Return the path of a filled part of the question in an object or its JSON text; empty for none."""
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        try:
            value = parse_json(value)
        except ValueError:
            return ""
    if not isinstance(value, Mapping):
        return ""
    for name, item in value.items():
        if is_filled(item) and isinstance(name, str) and is_part_of_question(name):
            return name
        if within := _part_of_question_in(item):
            return f"{name}.{within}"
    return ""


def refuse_contradiction(row: Row, ignored: Collection[str] = ()) -> None:
    """Refuse a row whose measures say that the rejected response is the better one.

    Raises:
        DataError: Naming the measure of the chosen response.
    """
    for better, worse in MEASURES:
        high, low = row.get(better), row.get(worse)
        if better not in ignored and is_number(high) and is_number(low) and high < low:
            raise DataError(
                f"{high} is less than {worse}, {low}: the row contradicts itself; take it out, or name both "
                "columns by the option ignored_columns",
                field=better,
            )


def unread_column_error(name: str, read: Collection[str]) -> DataError:
    """Return the error of a row with a column that its format doesn't read, or with a part of it."""
    column, _, within = name.partition(".")
    if within and column in IGNORED:
        return DataError(
            "is a part of the question by its name, in a column that is left out; make it a column of its "
            f"own, or name {column!r} by the option ignored_columns",
            field=name,
        )
    return DataError(
        f"is a column that is neither read ({', '.join(read)}) nor known to say nothing of the answer; take "
        "it out, or name it by the option ignored_columns",
        field=name,
    )
