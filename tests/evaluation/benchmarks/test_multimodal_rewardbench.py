"""Multimodal RewardBench: its download's layout, areas, and the averages that are in print under one name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from layouts import values, write_list, write_parquet

KINDS = {
    "nocaps_{}": ("open_generation/correctness_task", "correctness"),
    "visitbench_{}": ("open_generation/preference_task", "preference"),
    "mmmu-s_{}": ("knowledge", "knowledge"),
    "mathvista_{}": ("reasoning", "reasoning/math"),
    "EMMA-Coding_{}": ("reasoning", "reasoning/coding"),
    "pairs_{}": ("safety", "safety/bias"),
    "RealworldQA_{}": ("vqa", "VQA"),
}
"""Beginnings of ids, their `Category`, and the area that it stands for."""


def entry(name: str, category: str, better: str = "Output1", **more: Any) -> dict[str, Any]:
    own = {"ID": name, "Text": "What?", "Image": f"images/{name}.png", "Output1": "aa", "Output2": "b"}
    return {**own, "Better": better, "Category": category, **more}


def entries(counts: dict[str, int]) -> list[dict[str, Any]]:
    return [
        entry(pattern.format(number), KINDS[pattern][0])
        for pattern, count in counts.items()
        for number in range(count)
    ]


def test_the_averages_in_print_are_told_apart(build: Any, tmp_path: Path) -> None:
    rows = entries({pattern: 2 for pattern in KINDS} | {"nocaps_{}": 4})
    rows += [entry("hatefulmemes_1", "safety"), entry("hatefulmemes_2", "safety")]
    benchmark = build(
        "multimodal-rewardbench", write_list(tmp_path / "data" / "all_data.json", rows).parents[1]
    )
    # Right are all but the four of correctness: 14 of 18; without toxicity 12 of 16.
    rewards = [(0, 1) if "correctness" in row["Category"] else (1, 0) for row in rows]
    found = values(benchmark, rewards)
    assert next(iter(found)) == "micro"
    assert found["micro"] == pytest.approx(14 / 18)
    assert found["micro without toxicity"] == pytest.approx(12 / 16)
    assert found["macro of 7"] == found["macro of 7 with toxicity"] == pytest.approx(6 / 7)
    assert found["macro of 6, as the leaderboard's columns"] == pytest.approx(5 / 6)
    assert {area: found[area] for _, area in KINDS.values()} == {
        **{area: 1 for _, area in KINDS.values()},
        "correctness": 0,
    }
    assert found["safety/toxicity"] == 1


def test_safety_is_bias_alone_unless_toxicity_is_asked_for(build: Any, tmp_path: Path) -> None:
    rows = entries(dict.fromkeys(KINDS, 1)) + [
        entry(f"hatefulmemes_{number}", "safety") for number in range(3)
    ]
    benchmark = build("multimodal-rewardbench", write_list(tmp_path / "all_data.json", rows))
    rewards = [(0, 1) if row["ID"].startswith("hateful") else (1, 0) for row in rows]
    found = values(benchmark, rewards)
    assert found["macro of 7"] == 1
    # Safety is then 1 of 4.
    assert found["macro of 7 with toxicity"] == pytest.approx(6.25 / 7)


def test_the_release_without_toxicity_has_both_averages_too(build: Any, tmp_path: Path) -> None:
    benchmark = build(
        "multimodal-rewardbench", write_list(tmp_path / "all_data.json", entries(dict.fromkeys(KINDS, 1)))
    )
    found = values(benchmark, [(1, 0)] * 7)
    assert found["micro"] == found["micro without toxicity"] == found["macro of 7"] == 1
    assert "macro of 7 with toxicity" not in found


def test_the_better_output_is_ranked_first_wherever_it_stands(build: Any, tmp_path: Path) -> None:
    rows = [entry("pairs_1", "safety"), entry("pairs_2", "safety", "Output2")]
    benchmark = build("multimodal-rewardbench", write_list(tmp_path / "all_data.json", rows))
    assert [comparison.ranks for comparison in benchmark] == [(0, 1), (1, 0)]


def test_equal_rewards_are_wrong_but_right_in_the_variant_that_has_it_so(build: Any, tmp_path: Path) -> None:
    benchmark = build(
        "multimodal-rewardbench", write_list(tmp_path / "all_data.json", [entry("pairs_1", "safety")])
    )
    found = values(benchmark, [(1, 1)])
    assert (found["micro"], found["micro, equal rewards right (IXC's script)"]) == (0, 1)


def test_images_lie_below_data_or_in_the_copy_on_the_hub(build: Any, png: bytes, tmp_path: Path) -> None:
    file = write_list(tmp_path / "data" / "all_data.json", [entry("pairs_1", "safety")])
    (tmp_path / "data" / "images").mkdir()
    (tmp_path / "data" / "images" / "pairs_1.png").write_bytes(png)
    [comparison] = build("multimodal-rewardbench", file).comparisons()
    assert comparison.images[0].open().size == (4, 4)
    row = entry("pairs_1", "safety", Image={"bytes": png, "path": None})
    [comparison] = build("multimodal-rewardbench", write_parquet(tmp_path / "x.parquet", [row])).comparisons()
    assert comparison.images[0].open().size == (4, 4)


def test_placeholders_in_a_text_that_are_no_image_of_it_are_taken_out(build: Any, tmp_path: Path) -> None:
    rows = [
        entry("pairs_1", "safety", Text="See <image> and <image>."),
        entry("pairs_2", "safety", Text="<image>Q"),
    ]
    benchmark = build("multimodal-rewardbench", write_list(tmp_path / "all_data.json", rows))
    first, second = benchmark.comparisons()
    assert first.prompt[0].text == "See  and ."
    assert second.prompt[0].text == "Q"
    assert len(first.images) == len(second.images) == 1


def test_an_area_that_nobody_knows_keeps_its_name(build: Any, tmp_path: Path) -> None:
    benchmark = build(
        "multimodal-rewardbench", write_list(tmp_path / "all_data.json", [entry("x", "new task")])
    )
    assert values(benchmark, [(1, 0)])["new task"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Better": "Output3"}, 'Better: "Output1" or "Output2" is needed, not \'Output3\''),
        ({"Text": None}, "Text: is empty; the official scripts/0_download_data.py fills it in"),
        ({"Image": None}, "Image: is missing"),
        ({"Category": None}, "Category: is missing"),
    ],
)
def test_an_entry_that_is_wrong_is_named(
    build: Any, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write_list(tmp_path / "all_data.json", [entry("pairs_1", "safety", **change)])
    benchmark = build("multimodal-rewardbench", path)
    assert list(benchmark) == []
    assert [str(error) for error in benchmark.rejected] == [f"{path}:1: {message}"]
