"""Datasets: files in, comparisons out."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from basereward import DataError
from basereward.data.dataset import FileDataset
from basereward.data.fields import text_of

if TYPE_CHECKING:
    from pathlib import Path

    from basereward.data.reading.row import Row


class Votes(FileDataset):
    """Questions whose answers have votes: more votes, better answer; as many, a tie.

    A row is `{"question": TEXT, "answers": [{"text": TEXT, "votes": NUMBER}, ...]}`.
    """

    # A row with another column is refused, unless it is known to say nothing of the answer, such as an id.
    columns = MappingProxyType({"question": "the question", "answers": "its answers with their votes"})

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in BaseReward's own format; what is wrong with it goes on the list of bad rows."""
        answers = row.get("answers")
        if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
            raise DataError("must be a list of objects with text and votes", field="answers")
        return {
            "prompt": text_of(row, "question"),
            "responses": [text_of(answer, "text") for answer in answers],
            "ratings": [answer.get("votes") for answer in answers],
        }
