"""Multimodal RewardBench 2: what of it is read, what is counted, and its judges' accuracy."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import hub_benchmarks
import pytest
from layouts import values, write_parquet

from basereward.errors import DataError
from basereward.evaluation.benchmarks.multimodal_rewardbench2 import OFFICIAL_JUDGE
from basereward.evaluation.benchmarks.report import score_table
from basereward.evaluation.benchmarks.run import run_benchmark
from basereward.scoring.baselines import baseline_of


def pair(name: str = "blink_1", **changes: Any) -> dict[str, Any]:
    sides = {
        f"response_{side}": {"model_name": side, "response_content": [["text", f"{side} {name}"]]}
        for side in "ab"
    }
    prompt = {"prompt_content": [["text", "Q"]], "prompt_source": "blink"}
    return {"id": name, **prompt, **sides, "chosen": "A", **changes}


def write(path: Path, pairs: list[Any]) -> Path:
    path.write_text(json.dumps({"pairs": pairs}))
    return path


def test_pairs_whose_responses_hold_images_are_counted_and_not_read(build: Any, tmp_path: Path) -> None:
    hub_benchmarks.multimodal_rewardbench2(tmp_path)
    benchmark = build("multimodal-rewardbench2", tmp_path)
    run = run_benchmark(benchmark, {"first": baseline_of("first")}, name=benchmark.name, data=str(tmp_path))
    # Of 14 pairs of the reasoning task the numbers 3 and 10 hold an image.
    assert run.entries[0].evaluation.num_comparisons == 12
    assert run.entries[0].num_unread == 0
    counts = "reasoning 2, t2i 2, edit 3, interleaved 1"
    note = f"Not supported, since their responses hold images: 8 rows ({counts})."
    assert note in run.notes
    assert run.to_dict()["remarks"] == [note]


def test_always_the_first_response_has_the_share_of_a_and_a_column(build: Any, tmp_path: Path) -> None:
    hub_benchmarks.multimodal_rewardbench2(tmp_path)
    benchmark = build("multimodal-rewardbench2", tmp_path)
    # A is chosen in the numbers 0, 6, 9 and 12 of the twelve; number 3 is one of those with an image.
    assert values(benchmark, [(1, 0)] * 12)["reasoning"] == pytest.approx(4 / 12)
    models = {name: baseline_of(name) for name in ("first", "longest")}
    run = run_benchmark(benchmark, models, name=benchmark.name, data=str(tmp_path))
    score = run.entries[1].scores["reasoning"]
    assert score.first_baseline == run.entries[0].scores["reasoning"].value == pytest.approx(4 / 12)
    assert score.longer_baseline == score.value
    table = score_table(run)
    assert list(table.titles[3:6]) == ["longer baseline", "always first", "chance"]
    [row] = [row.texts for row in table.rows if row.texts[0] == "reasoning"]
    assert list(row[4:6]) == ["33.33", "50.00"]


def test_prompts_keep_the_places_of_their_images(build: Any, png: bytes, tmp_path: Path) -> None:
    (tmp_path / "input_images").mkdir()
    (tmp_path / "input_images" / "1.jpg").write_bytes(png)
    content = [["text", "Look <image> at "], ["image", "input_images/1.jpg"], ["text", ": what?"]]
    benchmark = build(
        "multimodal-rewardbench2", write(tmp_path / "reasoning.json", [pair(prompt_content=content)])
    )
    [row] = benchmark.comparisons()
    first, image, last = row.prompt[0].content
    assert (first, last) == ("Look  at ", ": what?")
    assert image.open().size == (4, 4)


def test_the_hubs_copy_is_read_too(build: Any, png: bytes, tmp_path: Path) -> None:
    image = {"bytes": png, "path": None}
    rows = [
        {
            "pair_id": name,
            "prompt_text": text,
            "prompt_images": [image],
            "response_a_text": "one",
            "response_a_images": images,
            "response_b_text": "another",
            "response_b_images": [],
            "chosen": "b",
            "prompt_source": "vstar",
            "prompt_metadata": '{"id": 7}',
        }
        for name, text, images in (
            ("marked", "In <image_1>: what?", []),
            ("unmarked", "What?", []),
            ("image", "Q", [image]),
        )
    ]
    write_parquet(tmp_path / "reasoning" / "test-00000-of-00001.parquet", rows)
    benchmark = build("multimodal-rewardbench2", tmp_path)
    marked, unmarked = benchmark.comparisons()
    assert [type(part).__name__ for part in marked.prompt[0].content] == ["str", "Image", "str"]
    assert [type(part).__name__ for part in unmarked.prompt[0].content] == ["str", "Image"]
    assert (marked.ranks, marked.responses) == ((1, 0), ("one", "another"))
    assert marked.meta["group"] == unmarked.meta["group"] == 'vstar {"id": 7}'
    assert benchmark.remarks[0].endswith(": 1 rows (reasoning 1).")


def test_a_judges_verdicts_are_counted_each_order_by_itself(build: Any, tmp_path: Path) -> None:
    hub_benchmarks.multimodal_rewardbench2(tmp_path)
    benchmark = build("multimodal-rewardbench2", tmp_path)
    for seed in range(10):
        chance = random.Random(seed)
        judged = {
            number: {order: (chance.choice((1, 2, None)),) for order in ((0, 1), (1, 0))}
            for number in range(len(benchmark.items))
        }
        # As `compute_accuracy.py` has it: letters, the reverse one flipped, and no letter left out.
        correct = evaluated = 0
        for number, item in enumerate(benchmark.items):
            chosen = "A" if item.ranks[0] == 0 else "B"
            for order, flips in (((0, 1), False), ((1, 0), True)):
                letter = {1: "A", 2: "B", None: None}[judged[number][order][0]]
                if letter:
                    evaluated += 1
                    correct += ({"A": "B", "B": "A"}[letter] if flips else letter) == chosen
        rewards = [(1.0, 0.0)] * len(benchmark.items)
        score = benchmark.report_judge(rewards, judged)[OFFICIAL_JUDGE]
        assert score.value == pytest.approx(correct / evaluated, abs=1e-12)
        assert (score.num, score.unit) == (evaluated, "verdicts")
        assert benchmark.report_judge([None] * len(rewards), judged)[OFFICIAL_JUDGE] == score


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": "C"}, 'chosen: "A" or "B" is needed, not \'C\''),
        (
            {"prompt_content": ["Q"]},
            'prompt_content: a list of ["text", TEXT] and ["image", PATH] is needed',
        ),
        ({"response_b": None}, "response_b: must be an object"),
    ],
)
def test_a_pair_that_is_wrong_is_named(
    build: Any, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "reasoning.json", [pair(**changes)])
    benchmark = build("multimodal-rewardbench2", path)
    assert list(benchmark) == []
    assert [str(error) for error in benchmark.rejected] == [f"{path}:1: {message}"]


def test_files_that_are_no_part_of_it_are_refused(build: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "t2i.json", [pair()])
    with pytest.raises(DataError, match=r"t2i.json: is no file of a part that is supported: reasoning.json"):
        build("multimodal-rewardbench2", path)
    path = tmp_path / "reasoning.json"
    path.write_text("[]")
    with pytest.raises(DataError, match='is no object of "pairs", as the official build writes it'):
        list(build("multimodal-rewardbench2", path))
