"""Layouts of pairs that other trainers name: alpaca's, orca's, axolotl's and ms-swift's columns.

They share the columns of `COMMON_COLUMNS`, and differ in those that make the prompt, by which a row is told
apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from basereward.data.columns import IGNORED
from basereward.data.dataset import FileDataset
from basereward.data.fields import (
    answer_of,
    margin_ratings,
    media_of,
    prompt_fields,
    refuse_conversation_text,
    single_column,
    text_of,
    tools_of,
)
from basereward.data.reading.row import Row
from basereward.errors import DataError
from basereward.message import is_filled

COMMON_COLUMNS: Mapping[str, str] = {
    "images": "images of the prompt, a list",
    "image": "instead of images: one, or a list",
    "videos": "videos of the prompt, a list",
    "video": "instead of videos: one, or a list",
    "tools": "tools that may be called, a list or its JSON text; they go to the chat template",
    "margin": "by how much the better response is better; it reaches the loss",
    "weight": "how much the row counts in the loss",
    "id": "names the row",
    "source": "names the data set in reports",
}
"""Columns that all layouts of pairs read alike."""


def common_fields(row: Row) -> Row:
    """Return what the columns of `COMMON_COLUMNS` say, in our own format; the first response is better.

    Raises:
        DataError: Naming the column that is wrong, or a text that is a conversation as JSON text.
    """
    for name, value in row.items():
        if isinstance(value, str) and name not in IGNORED and name not in COMMON_COLUMNS:
            refuse_conversation_text(value, name)
    fields: Row = {
        "images": media_of(row, "image"),
        "videos": media_of(row, "video"),
        "tools": tools_of(row),
        "ranks": [0, 1],
        "meta": {
            key: value
            for key, value in row.items()
            if key in IGNORED and key not in ("id", "source") and isinstance(value, str | int | float | bool)
        },
        **margin_ratings(row),
    }
    return fields | {key: row[key] for key in ("id", "source", "weight") if is_filled(row.get(key))}


class AlpacaPairs(FileDataset):
    """Alpaca's columns with two responses, as LLaMA-Factory reads them: `instruction`, `input`, and the pair.

    The prompt is `system`, the question and answer of each entry of `history`, then `instruction` and `input`
    with a line break between them.
    """

    detected_by = ("instruction", "chosen", "rejected")
    also_detected_by = (("instruction", "input", "chosen", "rejected"),)
    columns: Mapping[str, str] = {
        "instruction": "the question",
        "input": "what the question is about, on a line of its own",
        "system": "the system message",
        "history": "earlier turns, a list of [question, answer]",
        "chosen": "the better response",
        "rejected": "the worse response",
        **COMMON_COLUMNS,
    }

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        question = text_of(row, "instruction")
        if row.get("input"):
            question = f"{question}\n{text_of(row, 'input')}" if question else text_of(row, "input")
        return common_fields(row) | {
            "prompt": [*_system(row, "system"), *_history(row), {"role": "user", "content": question}],
            "responses": [answer_of(row.get("chosen"), "chosen"), answer_of(row.get("rejected"), "rejected")],
        }


class OrcaPairs(FileDataset):
    """The columns of the Orca pairs: `system`, `question`, `chosen` and `rejected`, perhaps with images.

    Marks of images in `question` stay where there are as many as images; else the images come first.
    """

    detected_by = ("question", "chosen", "rejected")
    columns: Mapping[str, str] = {
        "question": "the question",
        "system": "the system message",
        "system_prompt": "instead of system",
        "chosen": "the better response",
        "rejected": "the worse response",
        **COMMON_COLUMNS,
    }

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        fields = common_fields(row)
        asked = prompt_fields(text_of(row, "question"), fields["images"], fields["videos"])
        system = [*_system(row, "system"), *_system(row, "system_prompt")]
        if len(system) > 1:
            raise DataError("give either system or system_prompt", field="system_prompt")
        return fields | {
            "prompt": [*system, {"role": "user", "content": asked["prompt"]}],
            "responses": [answer_of(row.get("chosen"), "chosen"), answer_of(row.get("rejected"), "rejected")],
        }


class AxolotlPairs(FileDataset):
    """Columns of axolotl's types of pairs; conversations are read as `sharegpt` and `trl`.

    - `bradley_terry.chat_template`, `chatml.icr` and `llama3.icr`: `input`, `chosen`, `rejected`, `system`.
    - `chatml.argilla`: `instruction`, `chosen_response`, `rejected_response`, `system`.
    - `chatml.prompt_pairs`: `system`, `prompt`, `chosen`, `rejected`.
    """

    detected_by = ("input", "chosen", "rejected")
    also_detected_by = (
        ("instruction", "chosen_response", "rejected_response"),
        ("system", "prompt", "chosen", "rejected"),
    )
    columns: Mapping[str, str] = {
        "input": "the question",
        "instruction": "instead of input",
        "prompt": "instead of input",
        "system": "the system message",
        "chosen": "the better response",
        "rejected": "the worse response",
        "chosen_response": "instead of chosen",
        "rejected_response": "instead of rejected",
        **COMMON_COLUMNS,
    }

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        chosen, rejected = (
            single_column(row, "chosen", "chosen_response"),
            single_column(row, "rejected", "rejected_response"),
        )
        question = single_column(row, "input", "instruction", "prompt")
        return common_fields(row) | {
            "prompt": [*_system(row, "system"), {"role": "user", "content": text_of(row, question)}],
            "responses": [answer_of(row[chosen], chosen), answer_of(row[rejected], rejected)],
        }


class MSSwiftPairs(FileDataset):
    """ms-swift's columns of single texts: `query`, `response`, `rejected_response`, `history`, `system`.

    Its rows of `messages` are read as `sharegpt`.
    """

    detected_by = ("query", "response", "rejected_response")
    also_detected_by = (
        ("question", "response", "rejected_response"),
        ("prompt", "response", "rejected_response"),
        ("instruction", "output", "rejected_response"),
    )
    columns: Mapping[str, str] = {
        "query": "the question",
        "question": "instead of query",
        "prompt": "instead of query",
        "instruction": "instead of query",
        "input": "what the question is about, on a line of its own",
        "system": "the system message",
        "history": "earlier turns, a list of [question, answer]",
        "response": "the better response",
        "output": "instead of response",
        "rejected_response": "the worse response",
        **COMMON_COLUMNS,
    }

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        question = text_of(row, single_column(row, "query", "question", "prompt", "instruction"))
        if row.get("input"):
            question = f"{question}\n{text_of(row, 'input')}"
        better = single_column(row, "response", "output")
        return common_fields(row) | {
            "prompt": [*_system(row, "system"), *_history(row), {"role": "user", "content": question}],
            "responses": [
                answer_of(row[better], better),
                answer_of(row.get("rejected_response"), "rejected_response"),
            ],
        }


def _system(row: Row, field: str) -> list[Row]:
    return [{"role": "system", "content": text_of(row, field)}] if row.get(field) else []


def _history(row: Row) -> list[Row]:
    """Return the turns of a list of question and answer."""
    turns: list[Row] = []
    history: Any = row.get("history") or []
    for entry in history if isinstance(history, Sequence) else [history]:
        if (
            not isinstance(entry, list | tuple)
            or len(entry) != 2
            or not all(isinstance(text, str) for text in entry)
        ):
            raise DataError("a list of [question, answer] is needed, both texts", field="history")
        turns += [{"role": "user", "content": entry[0]}, {"role": "assistant", "content": entry[1]}]
    return turns
