"""MM-RLHF: pairs put together to rankings, critiques, videos."""

from __future__ import annotations

from pathlib import Path

import published
from published import only, read, write_rows

from basereward.data.published.mm_rlhf import ranking


def test_ranks_that_pairs_say_and_no_more() -> None:
    # a > b > c, all three pairs: a ranking.
    assert ranking([("a", "b", False), ("b", "c", False), ("a", "c", False)]) == {"a": 0, "b": 1, "c": 2}
    # a over b and c, which no pair ranks: they are tied, as a pair may say.
    assert ranking([("a", "b", False), ("a", "c", False)]) == {"a": 0, "b": 1, "c": 1}
    assert ranking([("a", "b", False), ("a", "c", False), ("b", "c", True)]) == {"a": 0, "b": 1, "c": 1}
    # a > b > c without a > c: ranks would say what no pair does.
    assert ranking([("a", "b", False), ("b", "c", False)]) is None
    # A circle, and two pairs that have nothing in common.
    assert ranking([("a", "b", False), ("b", "a", False)]) is None
    assert ranking([("a", "b", False), ("b", "c", False), ("c", "a", False)]) is None
    assert ranking([("a", "b", False), ("b", "c", False), ("a", "c", True)]) is None


def test_pairs_that_make_no_ranking_stay_pairs_and_ties_are_ties(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "b", "rejected": "c"},
        {"prompt": "q", "chosen": "x", "rejected": "y", "is_tie": True},
        {"prompt": "r", "chosen": "x", "rejected": 5},
        {"prompt": "r", "chosen": "x", "rejected": "y"},
    ]
    comparisons, rejected = read(tmp_path, "mm-rlhf", *rows)
    assert [(item.responses, item.ranks) for item in comparisons] == [
        (("a", "b"), (0, 1)),
        (("b", "c"), (0, 1)),
        (("x", "y"), (0, 0)),
        (("x", "y"), (0, 1)),
    ]
    assert rejected == ["4: rejected: must be a text, not a int"]


def test_a_video_of_mm_rlhf_is_a_folder_of_frames(tmp_path: Path) -> None:
    (tmp_path / "video" / "clip").mkdir(parents=True)
    for number in (10, 2):
        (tmp_path / "video" / "clip" / f"{number}.png").write_bytes(published.image())
    row = {"prompt": "<video>\nWhat happens?", "video": "video/clip", "chosen": "a", "rejected": "b"}
    [comparison], _ = read(tmp_path, "mm-rlhf", row)
    assert [Path(frame.name).name for frame in comparison.videos[0].frames] == ["2.png", "10.png"]


def test_reasons_of_mm_rlhf_are_the_critiques_of_the_responses_they_are_about(tmp_path: Path) -> None:
    pairs = [("a", "b", "true", None), ("a", "c", "true", "false"), ("b", "c", " ", "false")]
    rows = [
        {
            "id": "1",
            "prompt": "p",
            "chosen": better,
            "rejected": worse,
            "chosen_reason": why,
            "rejected_reason": not_,
        }
        for better, worse, why, not_ in pairs
    ]
    [comparison], _ = read(tmp_path, "mm-rlhf", *rows)
    assert comparison.responses == ("a", "b", "c")
    assert comparison.meta["critiques"] == ["true", None, "false"]


def test_the_pairs_of_mm_rlhf_are_found_in_its_directory(tmp_path: Path) -> None:
    write_rows(tmp_path / "data.jsonl", [{"other": 1}], "jsonl")
    write_rows(tmp_path / "dpo_pairs.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}], "jsonl")
    assert only("mm-rlhf", tmp_path).responses == ("a", "b")
