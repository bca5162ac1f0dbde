"""One row of each published data set as it is on disk, written for these tests, and what it means."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from basereward import Comparison
from basereward.config import Component
from basereward.data import Dataset
from basereward.plugins import PluginManager


def image(colour: str = "red") -> bytes:
    """Return a small PNG file."""
    buffer = io.BytesIO()
    Pillow.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


INSIDE = {"bytes": image(), "path": "cat.png"}
"""An image as Parquet files of the hub hold it."""


@dataclass(frozen=True)
class Published:
    """A data set's rows that make one comparison, and that comparison."""

    rows: list[dict[str, Any]]
    prompt: Any
    responses: list[str]
    ranks: list[float]
    container: str = "jsonl"
    ratings: list[float] | None = None
    num_images: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    id: str | None = None


ASKED = "What is shown?"
CHAT = [{"role": "user", "content": ASKED}]


def said(text: str, role: str = "assistant") -> dict[str, str]:
    """Return a turn as chat formats have it."""
    return {"role": role, "content": text}


def turn(speaker: str, text: str) -> dict[str, str]:
    """Return a turn as ShareGPT has it."""
    return {"from": speaker, "value": text}


def vlfeedback(helpful: str, ethical: str, faithful: str) -> dict[str, Any]:
    """Return the annotations of a response in VLFeedback."""
    ratings = {"Helpfulness": helpful, "Ethical Considerations": ethical, "Visual Faithfulness": faithful}
    return {aspect: {"Rating": rating, "Rationale": "because"} for aspect, rating in ratings.items()}


R1_MESSAGE = [
    {
        "role": "user",
        "content": [
            {
                "type": "text",
                "text": "You are an evaluator.\n\n###### **Input:**  \n"
                "###### [Question]:\nWhat is shown?  \n\n"
                "###### [Response 1]:\na dog  \n\n###### [Response 2]:\na cat\n  \n\n"
                "###### **Output Format (strictly follow):**  \n<think>...</think><answer>1/2</answer>",
            },
            {"type": "image", "image": "cat.png"},
        ],
    }
]

PAIR = {"prompt": [ASKED], "responses": ["a cat", "a dog"], "ranks": [0, 1]}

SETS = {
    "basereward": Published(
        [
            {
                "prompt": "<image>What is shown?",
                "images": ["cat.png"],
                "responses": ["a", "b"],
                "ratings": [2, 1],
            }
        ],
        ASKED,
        ["a", "b"],
        [0, 1],
        ratings=[2, 1],
    ),
    "trl": Published(
        [{"prompt": CHAT, "chosen": [said("a")], "rejected": [said("b")], "images": ["cat.png"]}],
        ASKED,
        ["a", "b"],
        [0, 1],
    ),
    "trl-stepwise": Published(
        # The second of three steps is neither right nor wrong.
        [
            {
                "prompt": "<image>What is shown?",
                "completions": ["a", "b", "c"],
                "labels": [True, None, False],
                "images": ["cat.png"],
            }
        ],
        ASKED,
        ["a\n", "a\nb\nc"],
        [0, 1],
        ratings=[1, 0],
    ),
    "mm-rlhf": Published(
        # A ranking of three, best first, of which the last two are tied: two pairs.
        [
            {
                "id": 7,
                "prompt": "<image>\nWhat is shown?",
                "image": "mcq/cat.png",
                "chosen": "a",
                "rejected": "b",
            },
            {
                "id": 7,
                "prompt": "<image>\nWhat is shown?",
                "image": "mcq/cat.png",
                "chosen": "a",
                "rejected": "c",
            },
        ],
        "\nWhat is shown?",
        ["a", "b", "c"],
        [0, 1, 1],
        id="7",
    ),
    "vlfeedback": Published(
        [
            {
                "id": "svit-1",
                "prompt": ASKED,
                "image": INSIDE,
                "models": ["m1", "m2", "m3"],
                "completions": {
                    "annotations": [
                        vlfeedback("5", "5", "2"),
                        vlfeedback("3", "N/A", "4"),
                        vlfeedback("1", "5", "1"),
                    ],
                    "model": ["m1", "m2", "m3"],
                    "response": ["a", "b", "c"],
                },
            }
        ],
        ASKED,
        ["a", "b", "c"],
        [0, 1, 2],
        container="parquet",
        # (5 + 5 + 2) / 3, (3 + 4) / 2 of the two that are rated, (1 + 5 + 1) / 3
        ratings=[4, 3.5, 7 / 3],
        id="svit-1",
    ),
    "rlaif-v": Published(
        [
            {
                "ds_name": "RLAIF-V",
                "image": INSIDE,
                "question": ASKED,
                "chosen": "a",
                "rejected": "b",
                "origin_dataset": "LCS-558K",
                "origin_split": "train",
                "idx": 0,
                "image_path": "0.jpg",
            }
        ],
        ASKED,
        ["a", "b"],
        [0, 1],
        container="parquet",
        id="0",
    ),
    "rlhf-v": Published(
        [
            {
                "ds_name": "RLHF-V",
                "image": INSIDE,
                "text": json.dumps({"question": ASKED, "chosen": "a", "rejected": "b"}),
                "idx": 3,
            }
        ],
        ASKED,
        ["a", "b"],
        [0, 1],
        container="parquet",
        id="3",
    ),
    "povid": Published(
        [
            {
                "id": "000000033471",
                "image": "cat.png",
                "conversations": [turn("human", "<image>\nWhat is shown?"), turn("gpt", "a")],
                "rejected_conversations": [turn("human", "<image>\nWhat is shown?"), turn("gpt", "b")],
            }
        ],
        "\nWhat is shown?",
        ["a", "b"],
        [0, 1],
        container="json",
        id="000000033471",
    ),
    "wildvision-battle": Published(
        [
            {
                "question_id": "q1",
                "model_a": "m1",
                "model_b": "m2",
                "conversation_a": [said(ASKED, "user"), said("a")],
                "conversation_b": [said(ASKED, "user"), said("b")],
                "language": "English",
                "image": INSIDE,
                "turn": 2,
                "anony": True,
                "winner": "model_b",
                "tstamp": 1.7e9,
                "judge": "1.2.3.4",
                "domain": [],
            }
        ],
        ASKED,
        ["a", "b"],
        [1, 0],
        container="parquet",
        id="q1",
    ),
    "llava-critic": Published(
        [
            {
                "id": "c1",
                "source": "vlfeedback",
                "image": INSIDE,
                "conversations": [
                    turn(
                        "human",
                        "<image>\nYou are provided with an image and a question. Please judge.\n"
                        "Question: [What is shown?]\nThe first response: [a]\n"
                        "The second response: [b]\nASSISTANT:\n",
                    ),
                    turn("gpt", "The second response is more precise. The better response: [second]"),
                ],
            }
        ],
        ASKED,
        # The greedy end takes up to the last bracket of what was given.
        ["a", "b"],
        [1, 0],
        container="parquet",
        id="c1",
    ),
    "mmif": Published(
        [
            {
                "conversations": [{"value": "<image>What is shown?"}],
                "chosen": {"value": "a"},
                "rejected": {"value": "b"},
                "images": ["cat.png"],
            }
        ],
        ASKED,
        ["a", "b"],
        [0, 1],
        container="json",
    ),
    "omnialign-v-dpo": Published(
        [
            {
                "id": "k-1",
                "image": "cat.png",
                "question": "<image>\nWhat is shown?",
                "chosen": "a",
                "rejected": "b",
            }
        ],
        "\nWhat is shown?",
        ["a", "b"],
        [0, 1],
        id="k-1",
    ),
    "r1-reward-rl": Published(
        [{"message": json.dumps(R1_MESSAGE), "question": ASKED, "answer": ["<answer>2</answer>"]}],
        ASKED,
        ["a dog", "a cat"],
        [1, 0],
    ),
    "ultrafeedback": Published(
        [
            {
                "source": "evol_instruct",
                "instruction": ASKED,
                "models": ["m1", "m2", "m3", "m4"],
                "correct_answers": ["None"],
                "incorrect_answers": ["None"],
                "completions": [
                    {"model": f"m{at}", "response": text, "overall_score": score, "annotations": {}}
                    for at, (text, score) in enumerate([("a", 7.5), ("b", 4.0), ("c", 8.0), ("d", 4.0)])
                ],
            }
        ],
        ASKED,
        ["a", "b", "c", "d"],
        [1, 2, 0, 2],
        ratings=[7.5, 4, 8, 4],
        num_images=0,
    ),
    "shp": Published(
        [
            {
                "post_id": "p1",
                "c_root_id_A": "x",
                "c_root_id_B": "y",
                "domain": "askbaking_train",
                "history": ASKED,
                "human_ref_A": "a",
                "human_ref_B": "b",
                "labels": 0,
                "score_A": 3,
                "score_B": 9,
            }
        ],
        ASKED,
        ["a", "b"],
        [1, 0],
        num_images=0,
        id="p1/x/y",
    ),
    "swe-arena": Published(
        [
            {
                "chat_session_id": "a1",
                "instruction": ASKED,
                "type": "web",
                "feedback": {"vote_type": "vote_right"},
                "states": {
                    model: {"messages": [["user", ASKED], ["assistant", text]], "model_name": model}
                    for model, text in (("model_A", "a"), ("model_B", "b"))
                },
            }
        ],
        ASKED,
        ["a", "b"],
        [1, 0],
        container="parquet",
        num_images=0,
        id="a1",
    ),
    "tulu3-if": Published(
        [{"id": "t1", "prompt": ASKED, "chosen": [*CHAT, said("a")], "rejected": [*CHAT, said("b")]}],
        ASKED,
        ["a", "b"],
        [0, 1],
        container="parquet",
        num_images=0,
        id="t1",
    ),
    "wildchat": Published(
        [{"id": "w1", "prompt": ASKED, "chosen": [*CHAT, said("a")], "rejected": [*CHAT, said("b")]}],
        ASKED,
        ["a", "b"],
        [0, 1],
        container="parquet",
        num_images=0,
        id="w1",
    ),
    "olmo2": Published(
        [
            {
                "id": "o1",
                "prompt": ASKED,
                "chosen": [*CHAT, said("a")],
                "rejected": [*CHAT, said("b")],
                "chosen_rating": 4.5,
                "rejected_rating": 2.0,
                "chosen_model": "m1",
                "rejected_model": "m2",
                "source": "wildchat",
            }
        ],
        ASKED,
        ["a", "b"],
        [0, 1],
        container="parquet",
        ratings=[4.5, 2],
        num_images=0,
        id="o1",
    ),
    "skywork-reward": Published(
        [{"chosen": [*CHAT, said("a")], "rejected": [*CHAT, said("b")], "source": "magpie_air"}],
        ASKED,
        ["a", "b"],
        [0, 1],
        container="parquet",
        num_images=0,
    ),
    "helpsteer": Published(
        [
            {"prompt": ASKED, "response": "a", "helpfulness": 3, "correctness": 4, "verbosity": 1},
            {"prompt": ASKED, "response": "b", "helpfulness": 4, "correctness": 2, "verbosity": 2},
        ],
        ASKED,
        ["a", "b"],
        [1, 0],
        ratings=[3, 4],
        num_images=0,
    ),
    "ixc": Published(
        [
            {
                "id": "i1",
                "image": ["cat.png"],
                "conversations_a": [turn("user", "<ImageHere>What is shown?"), turn("assistant", "a")],
                "conversations_b": [turn("user", "<ImageHere>What is shown?"), turn("assistant", "b")],
            }
        ],
        ASKED,
        ["a", "b"],
        [0, 1],
        container="json",
        id="i1",
    ),
    "sharegpt": Published(
        [
            {
                "conversations": [turn("human", "<image>What is shown?")],
                "chosen": turn("gpt", "a"),
                "rejected": turn("gpt", "b"),
                "images": ["cat.png"],
            }
        ],
        ASKED,
        ["a", "b"],
        [0, 1],
        container="json",
    ),
    "alpaca": Published(
        [
            {
                "instruction": "What is shown?",
                "input": "",
                "chosen": "a",
                "rejected": "b",
                "images": ["cat.png"],
            }
        ],
        ASKED,
        ["a", "b"],
        [0, 1],
    ),
    "orca": Published(
        [{"question": "<image>What is shown?", "chosen": "a", "rejected": "b", "image": "cat.png"}],
        ASKED,
        ["a", "b"],
        [0, 1],
    ),
    "axolotl": Published(
        [{"input": ASKED, "chosen": "a", "rejected": "b", "images": ["cat.png"]}],
        ASKED,
        ["a", "b"],
        [0, 1],
    ),
    "ms-swift": Published(
        [
            {
                "query": "<image>What is shown?",
                "response": "a",
                "rejected_response": "b",
                "images": ["cat.png"],
            }
        ],
        ASKED,
        ["a", "b"],
        [0, 1],
    ),
    "openrlhf": Published(
        [{"context_messages": CHAT, "better": "a", "worse": "b"}],
        ASKED,
        ["a", "b"],
        [0, 1],
        num_images=0,
        options={"prompt_key": "context_messages", "chosen_key": "better", "rejected_key": "worse"},
    ),
    "mmpr": Published(
        [
            {
                "id": 1,
                "image": "cat.png",
                "question": "<image>\nWhat is shown?",
                "chosen": "a",
                "rejected": "b",
            }
        ],
        "\nWhat is shown?",
        ["a", "b"],
        [0, 1],
        id="1",
    ),
}


def write_rows(path: Path, rows: list[Any], container: str) -> Path:
    """Write rows as JSONL, a JSON list or Parquet; a text among JSONL rows is written as it is."""
    if container == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif container == "json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    else:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", errors="surrogatepass")
    return path


def write_set(directory: Path, name: str) -> Path:
    """Write the rows of a data set, and the image that they name."""
    directory.mkdir(exist_ok=True)
    published = SETS[name]
    image_file = directory / ("images/cat.png" if name == "mm-rlhf" else "cat.png")
    image_file.parent.mkdir(exist_ok=True)
    image_file.write_bytes(image())
    return write_rows(directory / f"data.{published.container}", published.rows, published.container)


def opened(name: str, path: Path, **options: Any) -> Dataset:
    """Open a data set by its name."""
    return PluginManager().build("dataset", Component(name, {"path": str(path), **options}))


def only(name: str, path: Path, **options: Any) -> Comparison:
    """Return the only comparison of a data set; a bad row is raised."""
    dataset = opened(name, path, **options)
    dataset.on_bad_row = "fail"
    [comparison] = dataset
    return comparison


def read(tmp_path: Path, name: str, *rows: Any, **options: Any) -> tuple[list[Comparison], list[str]]:
    """Return the comparisons of rows, and the errors of the others without their file."""
    (tmp_path / "cat.png").write_bytes(image())
    file = write_rows(tmp_path / "rows.jsonl", list(rows), "jsonl")
    dataset = opened(name, file, **options)
    comparisons = list(dataset)
    return comparisons, [str(error).removeprefix(f"{file}:") for error in dataset.rejected]
