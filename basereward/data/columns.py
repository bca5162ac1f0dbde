"""Columns of rows: those that a format reads, and those without which a row means the same.

Any other column that has a value is refused by name. A list of what to refuse would be of no use: a row that
is read without its system message, its tools or an image under another name is a question that nobody asked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from basereward.data.reading.row import Row
from basereward.errors import DataError
from basereward.media.limits import is_number
from basereward.message import is_filled

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
    """Return the filled columns of a row that are neither read nor known to say nothing of the answer."""
    return [
        name
        for name, value in row.items()
        if name not in read and name not in IGNORED and name not in ignored and is_filled(value)
    ]


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
    """Return the error of a row with a column that its format doesn't read."""
    return DataError(
        f"is a column that is neither read ({', '.join(read)}) nor known to say nothing of the answer; take "
        "it out, or name it by the option ignored_columns",
        field=name,
    )
