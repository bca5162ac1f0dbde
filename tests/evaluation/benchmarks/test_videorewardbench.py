"""VideoRewardBench: its areas, its videos, and the columns that it may have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from layouts import values, write_lines

AREAS = {
    "Long-form Perception": "long-form perception",
    "short_perception": "short-form perception",
    "Knowledge": "knowledge",
    "reasoning": "reasoning",
    "SAFETY": "safety",
}


def row(area: str = "safety", video: str = "1.mp4", **changes: Any) -> dict[str, Any]:
    return {
        "video": video,
        "question": "<video>\nWhat?",
        "chosen": "yes",
        "rejected": "no",
        "category": area,
    } | changes


def test_overall_counts_pairs_and_macro_the_areas(build: Any, tmp_path: Path) -> None:
    rows = [row(area, f"{at}.mp4") for at, area in enumerate(AREAS)] + [row("safety", "0.mp4")] * 3
    benchmark = build("videorewardbench", write_lines(tmp_path / "a.jsonl", rows))
    assert [item.category for item in benchmark.items][:5] == list(AREAS.values())
    # Wrong are the four of safety, one of five areas; equal rewards are wrong.
    rewards = [(1, 1) if item.category == "safety" else (1, 0) for item in benchmark.items]
    found = values(benchmark, rewards)
    assert next(iter(found)) == "overall"
    assert found["overall"] == pytest.approx(4 / 8)
    assert found["macro of 5"] == pytest.approx(4 / 5)
    # The pairs of one video are one group of several.
    assert [item.group for item in benchmark.items] == [f"{at}.mp4" for at in (0, 1, 2, 3, 4, 0, 0, 0)]


def test_videos_lie_beside_the_annotation_or_below_videos(build: Any, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("1.mp4", "videos/2.mp4"):
        (tmp_path / name).write_bytes(b"no video is opened")
    rows = [row(video="1.mp4"), row(video="some/2.mp4")]
    first, second = build("videorewardbench", write_lines(tmp_path / "a.jsonl", rows))
    assert [each.videos[0].source for each in (first, second)] == [
        tmp_path / "1.mp4",
        tmp_path / "videos" / "2.mp4",
    ]
    assert first.prompt[0].text == "\nWhat?"


def test_other_names_of_its_columns_are_read(build: Any, tmp_path: Path) -> None:
    other = row() | {"prompt": "What?", "video_path": "1.mp4", "dimension": "Knowledge"}
    other = {name: value for name, value in other.items() if name not in ("question", "video", "category")}
    [item] = build("videorewardbench", write_lines(tmp_path / "a.jsonl", [other])).items
    assert item.category == "knowledge"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"category": "art"},
            "category: 'art' has none of the words long, short, knowledge, reasoning, safety",
        ),
        ({"video": None}, "video: is missing, as are video_path"),
        ({"chosen": None}, "chosen: is missing"),
    ],
)
def test_a_row_that_is_wrong_is_named(
    build: Any, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_lines(tmp_path / "a.jsonl", [row(**changes)])
    benchmark = build("videorewardbench", path)
    assert list(benchmark) == []
    assert [str(error) for error in benchmark.rejected] == [f"{path}:1: {message}"]
