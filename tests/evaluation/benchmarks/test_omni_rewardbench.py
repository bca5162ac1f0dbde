"""Omni-RewardBench: criteria, ties, and the tasks that are read."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import hub_benchmarks
import pytest
from layouts import values, write_list, write_parquet

from basereward.evaluation.benchmarks.judge_protocols import OFFICIAL


def row(**changes: Any) -> dict[str, Any]:
    texts = {"prompt": "Q", "response1": "one", "response2": "another", "criteria": "Short."}
    return {"id": "1", **texts, "criteria_preference": "response2", **changes}


def test_the_criterion_is_a_part_of_the_question(build: Any, tmp_path: Path) -> None:
    path = write_list(tmp_path / "text_to_text_preferences.json", [row(), row(criteria="Long.")])
    first, second = build("omni-rewardbench", path).comparisons()
    assert first.prompt[0].text == "Q\n\nThe answer is judged by this criterion: Short."
    assert (first.ranks, first.responses) == ((1, 0), ("one", "another"))
    # The same pair by two criteria is no two independent pairs.
    assert first.meta["group"] == second.meta["group"]
    [bare, _] = build("omni-rewardbench", path, show_criterion=False).comparisons()
    assert bare.prompt[0].text == "Q"


def test_ties_count_where_the_name_says_so_alone(build: Any, tmp_path: Path) -> None:
    rows = [row(criteria_preference=name) for name in ("response1", "response2", "tie", "tie")]
    benchmark = build("omni-rewardbench", write_list(tmp_path / "text_to_text_preferences.json", rows))
    rewards = [(1, 0), (1, 0), (1, 1), (1, 0)]
    found = values(benchmark, rewards)
    # Of the two pairs with a preference the first is right; of all four the first and the third.
    assert found["mean of 1 tasks"] == found["text_to_text"] == 0.5
    assert found["text_to_text, with ties"] == 0.5
    scores = benchmark.report(rewards)
    assert scores["text_to_text"].chance == 0.5
    # Random rewards are never equal: right are half of the half that is no tie.
    assert scores["text_to_text, with ties"].chance == 0.25
    assert (scores["text_to_text"].num, scores["text_to_text, with ties"].num) == (2, 4)


def test_tasks_without_texts_are_counted(build: Any, tmp_path: Path) -> None:
    hub_benchmarks.omni_rewardbench(tmp_path)
    benchmark = build("omni-rewardbench", tmp_path)
    rows = list(benchmark)
    assert benchmark.rejected == []
    assert len(rows) == 24
    assert {len(each.images) for each in rows if each.meta["category"] == "text_image_to_text"} == {1}
    assert {len(each.videos) for each in rows if each.meta["category"] == "text_video_to_text"} == {1}
    others = ("audio_to_text", "to_image", "to_video", "to_audio", "to_3D", "image_to_image")
    listed = ", ".join(f"text_{other} 8" for other in others)
    assert benchmark.remarks == (
        f"Not supported, since prompts or responses hold what no model here reads: 48 rows ({listed}).",
    )


def test_the_hubs_copy_is_read_too(build: Any, png: bytes, tmp_path: Path) -> None:
    image = {"image": {"bytes": png, "path": "1.png"}, "image_path": "images/1.png"}
    write_parquet(tmp_path / "text_image_to_text" / "test-00000-of-00001.parquet", [row(**image)])
    (tmp_path / "media_data").mkdir()
    (tmp_path / "media_data" / "1.mp4").write_bytes(b"no video is opened")
    video = {"video": "1.mp4", "video_path": "1.mp4"}
    write_parquet(tmp_path / "text_video_to_text" / "test-00000-of-00001.parquet", [row(**video)])
    first, second = build("omni-rewardbench", tmp_path)
    assert first.images[0].open().size == (4, 4)
    assert second.videos[0].source == tmp_path / "media_data" / "1.mp4"


def test_a_judges_unread_answer_is_wrong(build: Any, tmp_path: Path) -> None:
    hub_benchmarks.omni_rewardbench(tmp_path)
    benchmark = build("omni-rewardbench", tmp_path)
    chance = random.Random(0)
    judged = {
        number: {order: (chance.choice((1, 2, None)),) for order in ((0, 1), (1, 0))}
        for number in range(len(benchmark.items))
    }
    right: dict[str, list[bool]] = {}
    for number, item in enumerate(benchmark.items):
        preference = "tie" if item.ranks[0] == item.ranks[1] else f"response{1 + item.ranks.index(0)}"
        predicted = {1: "response1", 2: "response2", None: None}[judged[number][0, 1][0]]
        if preference != "tie":
            right.setdefault(item.category, []).append(predicted == preference)
    found = benchmark.report_judge([(1.0, 0.0)] * len(benchmark.items), judged)
    for task, each in right.items():
        assert found[f"{task}, {OFFICIAL}"].value == pytest.approx(sum(each) / len(each))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"criteria_preference": "A"},
            'criteria_preference: "response1", "response2" or "tie" is needed, not \'A\'',
        ),
        ({"criteria": None}, "criteria: is missing"),
        ({"response2": None}, "response2: is missing"),
    ],
)
def test_a_row_that_is_wrong_is_named(
    build: Any, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_list(tmp_path / "text_to_text_preferences.json", [row(**changes)])
    benchmark = build("omni-rewardbench", path)
    assert list(benchmark) == []
    assert [str(error) for error in benchmark.rejected] == [f"{path}:1: {message}"]
