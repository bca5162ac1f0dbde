"""Votes of people between two models' answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from basereward.comparison import Comparison
from basereward.data.dataset import Dataset, FileDataset
from basereward.data.fields import as_list, name_of, object_of, plain, text_of, turn_of, turns_of
from basereward.data.reading.paths import Split
from basereward.data.reading.row import Row
from basereward.data.trl import split
from basereward.errors import DataError


class BattleDataset(FileDataset):
    """Votes of people between two models' answers, of which many are ties.

    Args:
        ties: Whether a tied battle is a comparison whose responses have one rank, or no row at all.
    """

    published_responses = 2

    def __init__(
        self,
        path: str | Path,
        *,
        ties: Literal["keep", "drop"] = "keep",
        source: str | None = None,
        split: Split = None,
        config: str | None = None,
        media_dir: str | None = None,
        media_roots: tuple[str, ...] = (),
        media_hosts: tuple[str, ...] = (),
        ignored_columns: tuple[str, ...] = (),
    ) -> None:
        super().__init__(
            path,
            source=source,
            split=split,
            config=config,
            media_dir=media_dir,
            media_roots=media_roots,
            media_hosts=media_hosts,
            ignored_columns=ignored_columns,
        )
        self.ties = ties

    def read(self) -> Iterator[Comparison | DataError]:
        """Yield each battle as a comparison or an error with its place."""
        for row in super().read():
            is_tie = isinstance(row, Comparison) and row.ranks == (0.0, 0.0)
            if not (is_tie and self.ties == "drop"):
                yield row

    def count(self) -> int:
        """Return how many items `read` yields; by reading where ties are dropped."""
        return super().count() if self.ties == "keep" else Dataset.count(self)


RANKS_OF_VOTES = {
    "vote_left": [0, 1],
    "vote_model_A": [0, 1],
    "vote_right": [1, 0],
    "vote_model_B": [1, 0],
    "vote_tie": [0, 0],
    "vote_both_bad": [0, 0],
}
"""The ranks that a vote of BigCodeArena gives, in both of the forms in which it is written."""


class SWEArena(BattleDataset):
    """SWE-Arena and BigCodeArena (arXiv 2510.08697): `bigcode/bigcodearena-preference-5k`, votes on programs.

    `states.model_A.messages` and `states.model_B.messages` hold the whole conversations, as messages or as
    pairs of role and text; `feedback.vote_type` is the vote. Where there are no messages before the answer,
    `instruction` is the prompt. A battle in which an earlier answer differs already is refused.
    """

    name = "swe-arena"
    detected_by = ("instruction", "feedback", "states")
    columns: Mapping[str, str] = {
        "instruction": "the prompt, where the conversations have none",
        "feedback": "the vote, and what it was given for",
        "states": "the conversation with each model",
        "models": "the models' names",
        "type": "the kind of program",
        "chat_session_id": "names the row",
        "id": "names the row",
    }

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        vote = object_of(row, "feedback").get("vote_type")
        if not isinstance(vote, str) or vote not in RANKS_OF_VOTES:
            raise DataError(
                f"unknown vote {vote!r:.40}; votes: {', '.join(RANKS_OF_VOTES)}", field="feedback.vote_type"
            )
        states = dict(object_of(row, "states"))
        conversations = []
        for model in ("model_A", "model_B"):
            field = f"states.{model}.messages"
            turns = turns_of(
                [_message(turn) for turn in as_list(object_of(states, model).get("messages"))], field
            )
            if turns[0]["role"] == "assistant":
                turns = [turn_of(text_of(row, "instruction"), "instruction", "user"), *turns]
            conversations.append(turns)
        prompt, *responses = split(None, *conversations)
        return {
            "id": name_of(row, "chat_session_id", "id"),
            "prompt": prompt,
            "responses": responses,
            "ranks": RANKS_OF_VOTES[vote],
            "meta": plain(row, "type"),
        }


def _message(turn: Any) -> Any:
    """Return a message that may be written as a pair of role and text."""
    if isinstance(turn, list | tuple) and len(turn) == 2:
        return {"role": turn[0], "content": turn[1]}
    return turn
