"""Questions of published sets for the training of a policy, laid out as their hubs have them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_datasets import png, write_image
from layouts import write_lines, write_list, write_parquet
from PIL import Image as Pillow

TOOL = "\nThink first, call **image_zoom_in_tool** if needed, then answer. Format strictly as: <think>"


def deepeyes(place: Path) -> None:
    """`ChenShawn/DeepEyes-Datasets-47k`: a Parquet file of each set, in verl's format."""
    asked = {
        "data_0.1.2_visual_toolbox_v2": (
            "vstar",
            f"<image>\nWhat color is the cat?{TOOL}",
            "The cat is red.",
        ),
        "data_v0.8_visual_toolbox_v2": ("chart", f"<image>\nWhich rises?\nA) one\nB) two{TOOL}", "B"),
        "data_thinklite_reasoning_acc": (
            "thinklite_eureka",
            "<image>\nSolve it, and put the answer into a box.\nQuestion:\nWhat is x?",
            "12",
        ),
    }
    for number, (name, (source, text, answer)) in enumerate(asked.items()):
        row = {
            "data_source": source,
            "prompt": [
                {"role": "system", "content": "You may call tools."},
                {"role": "user", "content": text},
            ],
            "images": [{"bytes": png(number), "path": None}],
            "ability": "vl",
            "reward_model": {"style": "model", "ground_truth": answer},
            "extra_info": {"split": "train", "index": str(number), "question": "-", "answer": answer},
        }
        write_parquet(place / f"{name}.parquet", [row])


def vstar_bench(place: Path) -> None:
    """`craigwu/vstar_bench`: JSONL, images in a folder of each category."""
    write_image(place / "direct_attributes" / "sa_1.jpg", 0)
    row = {
        "image": "direct_attributes/sa_1.jpg",
        "text": "What is the material of the glove?\n(A) rubber\n(B) cotton\n"
        "Answer with the option's letter from the given choices directly.",
        "category": "direct_attributes",
        "label": "A",
        "question_id": "0",
    }
    write_lines(place / "test_questions.jsonl", [row])


def vstar_training(place: Path) -> None:
    """`craigwu/seal_vqa_data`: JSON lists; images lie where COCO and GQA have them."""
    image = "coco2017/train2017/1.jpg"
    write_image(place / image, 1)
    targets = [{"name": "bear", "bbox": [1, 2, 3, 4]}]
    rows = [
        {
            "image": "coco2017/train2017/1.jpg",
            "question": "Is it big?",
            "answer": "Yes",
            "target_instances": targets,
        },
        {
            "image": "coco2017/train2017/1.jpg",
            "conversations": [
                {
                    "from": "human",
                    "value": "<image>\nAdditional visual information to focus on: bear\nHow many?",
                },
                {"from": "gpt", "value": "Two"},
            ],
            "target_instances": targets,
        },
    ]
    write_list(place / "llava_focus_data.json", rows)


def arxivqa(place: Path) -> None:
    """`MMInstruction/ArxivQA`: JSONL; options with letters in several ways, or without."""
    write_image(place / "images" / "1501.00713_0.jpg", 2)
    common = {"id": "q", "image": "images/1501.00713_0.jpg", "question": "Which?", "rationale": "Because."}
    rows = [
        {**common, "options": ["A) one", "B) two"], "label": "B"},
        {**common, "options": ["[A] one", "[B] two"], "label": "[B]"},
        {**common, "options": ["one", "-", "two"], "label": "B. two"},
        {**common, "options": ["A) one", "B) two"], "label": "C"},
    ]
    write_lines(place / "arxivqa.jsonl", rows)


def thinklite(place: Path) -> None:
    """`russwang/ThinkLite-VL-hard-11k`: one Parquet file, the images as bytes."""
    rows = [
        {"id": "1", "problem": "<image>Find x. Choices: (A) 3 (B) 4", "answer": "B", "image": png(3)},
        {"id": "2", "problem": "<image>Find y.", "answer": "", "image": png(3)},
    ]
    write_parquet(place / "ThinkLite-VL-Hard-11k.parquet", rows)


LAYOUTS = {
    deepeyes: (
        [
            ("What color is the cat?", "The cat is red."),
            ("What is x?", "12"),
            ("Which rises?\nA) one\nB) two", "B"),
        ],
        {},
    ),
    vstar_bench: ([("What is the material of the glove?\n(A) rubber\n(B) cotton", "A")], {}),
    vstar_training: ([("Is it big?", "Yes"), ("How many?", "Two")], {}),
    arxivqa: (
        [("Which?\nA) one\nB) two", "B"), ("Which?\n[A] one\n[B] two", "B"), ("Which?\nA. one\nB. two", "B")],
        {"label": 1},
    ),
    thinklite: ([("Find x. Choices: (A) 3 (B) 4", "B")], {"row": 1}),
}


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_each_published_layout_becomes_questions_with_images(
    layout: Any, recipe: Any, tmp_path: Path
) -> None:
    layout(tmp_path / "data")
    output = tmp_path / "questions" / "questions.jsonl"
    questions, rejected = LAYOUTS[layout]
    found = recipe("questions").written([tmp_path / "data"], output)
    assert found == (len(questions), rejected)
    rows = read(output)
    assert [(row["question"], row["answer"]) for row in rows] == questions
    for row in rows:
        assert set(row) == {"image", "question", "answer"}
        with Pillow.open(output.parent / row["image"]) as image:
            assert image.size in ((56, 56), (84, 56), (56, 84), (28, 28))


def test_an_image_of_several_rows_is_written_once(recipe: Any, tmp_path: Path) -> None:
    rows = [{"problem": f"What is {number}?", "answer": "1", "image": png(0)} for number in range(3)]
    write_parquet(tmp_path / "a.parquet", rows)
    output = tmp_path / "out" / "questions.jsonl"
    assert recipe("questions").written([tmp_path / "a.parquet"], output) == (3, {})
    [image] = (tmp_path / "out" / "images").iterdir()
    assert {row["image"] for row in read(output)} == {f"images/{image.name}"}
    assert image.read_bytes() == png(0)


def test_rows_that_make_no_question_are_counted_by_field(
    recipe: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"problem": "What?", "answer": "1", "image": "nowhere.png"},
        {"problem": "What?", "answer": "1"},
        {"colour": "red"},
        {
            "prompt": [{"role": "user", "content": "What?"}],
            "images": [],
            "reward_model": {"ground_truth": "1"},
        },
    ]
    write_lines(tmp_path / "rows.jsonl", rows)
    counted = recipe("questions").written([tmp_path / "rows.jsonl"], tmp_path / "questions.jsonl")
    assert counted == (0, {"image": 1, "images": 1, "row": 2})
    printed = capsys.readouterr().err
    assert "rows.jsonl:3: is of no known layout; its fields: colour" in printed


def test_the_command_writes_one_file_of_several_sets(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vstar_training(tmp_path / "vstar")
    arxivqa(tmp_path / "arxivqa")
    moved = tmp_path / "images"
    os.rename(tmp_path / "vstar" / "coco2017", moved)
    os.makedirs(tmp_path / "root")
    os.rename(moved, tmp_path / "root" / "coco2017")
    output = tmp_path / "questions.jsonl"
    module = recipe("questions")
    arguments = ["questions.py", str(tmp_path / "vstar"), "--images", str(tmp_path / "root")]
    monkeypatch.setattr(sys, "argv", [*arguments, "--output", str(output)])
    module.main()
    assert capsys.readouterr().out == f"2 questions in {output}\n"
    monkeypatch.setattr(sys, "argv", ["questions.py", str(tmp_path / "arxivqa"), "--output", str(output)])
    module.main()
    assert capsys.readouterr().out == f"3 questions in {output}\n1 rows left out for their label\n"
