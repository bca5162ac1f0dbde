"""MM-RLHF-RewardBench: groups, categories of paths, images and frames."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from layouts import values, write_lines

from basereward import DataError
from basereward.evaluation.benchmarks.unit_scores import chance_of_order


def row(
    name: str, chosen: str, rejected: str, path: str = "mcq/1.png", kind: str = "image", **more: Any
) -> Any:
    reasons = {"chosen_reason": "r", "rejected_reason": "r"}
    return {
        "id": name,
        kind: path,
        "prompt": "What?",
        "chosen": chosen,
        "rejected": rejected,
        **reasons,
        **more,
    }


@pytest.fixture
def rows() -> list[Any]:
    """Return a ranking a > b > c of one image as three pairs, and a video's single pair."""
    return [
        row("one", "a", "b"),
        row("one", "a", "c"),
        row("one", "b", "c"),
        row("two", "x", "y", "video/clip", "video"),
    ]


def test_acc_counts_pairs_and_acc_plus_whole_groups(build: Any, tmp_path: Path, rows: list[Any]) -> None:
    benchmark = build("mm-rlhf-rewardbench", write_lines(tmp_path / "mm_reward_bench.jsonl", rows))
    scores = benchmark.report([(3, 2), (3, 2.5), (2, 2.5), (1, 0)])
    # Three of four pairs; of the two groups only the video's has all pairs right.
    assert (scores["Acc"].value, scores["Acc"].num) == (0.75, 4)
    assert (scores["Acc+"].value, scores["Acc+"].num, scores["Acc+"].unit) == (0.5, 2, "groups")
    assert (scores["Acc mcq"].value, scores["Acc+ mcq"].value) == (pytest.approx(2 / 3), 0)
    assert (scores["Acc video"].value, scores["Acc+ video"].value) == (1, 1)
    # (2/3 + 1) / 2
    assert scores["Acc, mean of categories"].value == pytest.approx(5 / 6)
    assert (scores["Acc"].method, scores["Acc+"].method) == ("Wilson", "bootstrap")


def test_equal_rewards_are_wrong_and_spoil_their_group(build: Any, tmp_path: Path, rows: list[Any]) -> None:
    benchmark = build("mm-rlhf-rewardbench", write_lines(tmp_path / "mm_reward_bench.jsonl", rows))
    found = values(benchmark, [(3, 2), (3, 1), (1, 1), (1, 0)])
    assert (found["Acc"], found["Acc+"], found["Acc, equal rewards half"]) == (0.75, 0.5, 0.875)


def test_a_comparison_that_was_not_scored_is_left_out_and_n_says_so(
    build: Any, tmp_path: Path, rows: list[Any]
) -> None:
    benchmark = build("mm-rlhf-rewardbench", write_lines(tmp_path / "mm_reward_bench.jsonl", rows))
    scores = benchmark.report([(3, 2), None, (2, 1), None])
    assert (scores["Acc"].num, scores["Acc+"].num) == (2, 1)
    assert "Acc video" not in scores
    with pytest.raises(DataError, match="^no comparison of 4 has been scored$"):
        benchmark.report([None] * 4)
    with pytest.raises(ValueError, match="^3 lists of rewards for 4 comparisons$"):
        benchmark.report([None] * 3)


def test_random_rewards_get_a_whole_ranking_right_once_in_all_its_orders(
    build: Any, tmp_path: Path, rows: list[Any]
) -> None:
    benchmark = build("mm-rlhf-rewardbench", write_lines(tmp_path / "mm_reward_bench.jsonl", rows))
    # One of the 3! orders of a, b and c, where a coin for each pair would have 1/8; and 1/2.
    assert benchmark.report([(1, 0)] * 4)["Acc+"].chance == pytest.approx((1 / 6 + 1 / 2) / 2)


def test_images_are_found_in_the_hubs_flat_layout_and_missed_only_when_opened(
    build: Any, png: bytes, tmp_path: Path, rows: list[Any]
) -> None:
    write_lines(tmp_path / "mm_reward_bench.jsonl", rows)
    benchmark = build("mm-rlhf-rewardbench", tmp_path)
    first, *_, last = benchmark.comparisons()
    assert benchmark.rejected == []
    with pytest.raises(DataError, match="mcq/1.png"):
        first.images[0].open()
    assert len(last.videos) == 1

    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(png)
    first, *_ = build("mm-rlhf-rewardbench", tmp_path).comparisons()
    assert first.images[0].source == tmp_path / "images" / "1.png"
    shutil.copytree(tmp_path / "images", tmp_path / "mcq")
    first, *_ = build("mm-rlhf-rewardbench", tmp_path).comparisons()
    assert first.images[0].source == tmp_path / "mcq" / "1.png"


def test_images_may_lie_elsewhere(build: Any, png: bytes, tmp_path: Path, rows: list[Any]) -> None:
    path = write_lines(tmp_path / "annotation" / "mm_reward_bench.jsonl", rows)
    (tmp_path / "images" / "mcq").mkdir(parents=True)
    (tmp_path / "images" / "mcq" / "1.png").write_bytes(png)
    first, *_ = build("mm-rlhf-rewardbench", path, images=str(tmp_path / "images")).comparisons()
    assert first.images[0].open().size == (4, 4)


def test_frames_are_sorted_and_taken_evenly(build: Any, png: bytes, tmp_path: Path, rows: list[Any]) -> None:
    frames = tmp_path / "images" / "clip"
    frames.mkdir(parents=True)
    for number in reversed(range(100)):
        (frames / f"c01_{number:04}.png").write_bytes(png)
    path = write_lines(tmp_path / "mm_reward_bench.jsonl", rows)
    *_, last = build("mm-rlhf-rewardbench", path).comparisons()
    names = [frame.source.name for frame in last.videos[0].frames]
    assert (len(names), names[0], names[-1]) == (32, "c01_0000.png", "c01_0099.png")
    assert names == sorted(names)
    *_, last = build("mm-rlhf-rewardbench", path, num_frames=3).comparisons()
    # 0, 99 / 2 rounded down, 99
    assert [frame.source.name for frame in last.videos[0].frames] == [
        *("c01_0000.png", "c01_0049.png", "c01_0099.png")
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image": "other/1.png"},
            "image: the path 'other/1.png' has none of the words mcq, long, short, safety, video",
        ),
        ({"image": "../long/1.png"}, "is not in"),
        ({"id": None}, "id: is missing"),
        ({"chosen": " "}, "responses[0]: is empty"),
    ],
)
def test_a_row_that_is_wrong_is_named(
    build: Any, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write_lines(tmp_path / "mm_reward_bench.jsonl", [row("one", "a", "b") | change])
    benchmark = build("mm-rlhf-rewardbench", path)
    assert list(benchmark) == []
    assert [f"{path}:1: " in str(error) and message in str(error) for error in benchmark.rejected] == [True]


def test_orders_are_counted() -> None:
    assert chance_of_order([(0, 1)]) == 1 / 2
    # a above b, and a above c: a is first of three.
    assert chance_of_order([(0, 1), (0, 2)]) == 1 / 3
    # Two pairs that share nothing.
    assert chance_of_order([(0, 1), (2, 3)]) == 1 / 4
    assert chance_of_order([(0, 1), (1, 0)]) == 0
    chain = [(number, number + 1) for number in range(20)]
    assert chance_of_order(chain) == pytest.approx(0, abs=1e-3)
    star = [(0, number) for number in range(1, 20)]
    assert chance_of_order(star) == pytest.approx(1 / 20, abs=0.01)  # by draws
