"""The list of rejected rows."""

from __future__ import annotations

from pathlib import Path

from basereward import DataError
from basereward.training.rejected_rows import RejectedRows


def test_a_rejected_row_is_listed_once(tmp_path: Path) -> None:
    path = tmp_path / "rejected.jsonl"
    rows = RejectedRows(path, fail=False)
    first, second = DataError("is empty", file="a.jsonl", line=3, field="prompt"), DataError("half: \ud83d")
    for error in (first, second, first):
        rows.add(error, split="train", id="r")
    offset = rows.sync()
    rows.add(DataError("met after the checkpoint"), split="eval")
    assert len(rows) == 3
    rows.close()

    again = RejectedRows(path, fail=False, offset=offset)
    assert len(again) == 2
    again.add(first, split="train", id="r")
    again.add(first, split="eval", id="r")
    again.close()
    assert path.read_text(encoding="utf-8").splitlines()[0] == (
        '{"split": "train", "id": "r", "file": "a.jsonl", "line": 3, "field": "prompt", "reason": "is empty"}'
    )
    assert len(path.read_bytes().splitlines()) == 3
