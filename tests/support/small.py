"""Options that make the first-party components small: published formats, tiny random models."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import judge_server
import published
import tiny
from layouts import write_lines, write_list, write_parquet

from basereward.plugins import builtin
from basereward.testing.subject import Options

PNG = published.image()


def options() -> dict[str, Options]:
    """Return the options of every first-party component that needs some."""
    models = {
        "causal-lm": tiny.save_causal_lm,
        "internvl": tiny.save_internvl,
        "llava-onevision": tiny.save_llava_onevision,
        "qwen-vl": tiny.save_qwen_vl,
    }
    return {
        **{f"backbone/{name}": _model(save) for name, save in models.items()},
        "paradigm/critic": {"max_critique_tokens": 6},
        "loss/binary-cross-entropy": {"right_from": 1.5},
        "writer/endpoint": lambda _: {"urls": [_judge_server()], "continues": True},
        "writer/own": lambda directory: {
            "model": str(tiny.add_language_head(tiny.save_qwen_vl(directory / "model"))),
            "backbone": "qwen-vl",
        },
        **{f"dataset/{name}": _data_set(name) for name in builtin.basereward_datasets()},
        **{f"benchmark/{name}": benchmark_options(name) for name in BENCHMARKS},
    }


@cache
def _judge_server() -> str:
    """Return the address of a server that runs as long as the tests do."""
    server = judge_server.JudgeServer()
    judge_server.start(server)
    return server.url


def _model(save: Any) -> Options:
    return lambda directory: {"model": str(save(directory / "model"))}


def _data_set(name: str) -> Options:
    def write(directory: Path) -> Mapping[str, Any]:
        return {"path": str(published.write_set(directory, name)), **published.SETS[name].options}

    return write


def benchmark_options(name: str) -> Options:
    """Return the options of a benchmark on some rows."""
    file, rows = BENCHMARKS[name]

    def write(directory: Path) -> Mapping[str, Any]:
        suffix = Path(file).suffix
        writer = {".jsonl": write_lines, ".json": write_list, ".parquet": write_parquet}[suffix]
        return {"path": str(writer(directory / file, rows))}

    return write


def _vl(name: str, ranks: list[int]) -> dict[str, Any]:
    image = {"bytes": PNG, "path": "x.png"}
    responses = [f"a {name}", f"the other {name}"]
    return {"id": name, "query": "What?", "response": responses, "image": image, "human_ranking": ranks}


def _mm_rlhf(group: str, chosen: str, rejected: str, path: str) -> dict[str, Any]:
    return {"id": group, "image": path, "prompt": "What?", "chosen": chosen, "rejected": rejected}


def _multimodal(name: str, category: str, better: str) -> dict[str, Any]:
    outputs = {"Output1": f"one {name}", "Output2": f"another {name}"}
    return {"ID": name, "Text": "What?", "Image": "images/x.png", **outputs, "Better": better} | {
        "Category": category
    }


def _pair(subset: str, number: int) -> dict[str, Any]:
    texts = {"chosen": f"right {number}", "rejected": f"quite wrong {number}"}
    return {"id": number, "prompt": "Q", "subset": subset, **texts}


def _best_of(subset: str, name: str, chosen: int, rejected: int) -> dict[str, Any]:
    right = [f"right {number}" for number in range(chosen)]
    wrong = [f"wrong {number}" for number in range(rejected)]
    return {"id": name, "prompt": "Q", "subset": subset, "chosen": right, "rejected": wrong}


def _styles(name: str, domain: str) -> dict[str, Any]:
    texts = {side: [side, f"{side} long", f"{side} *long*"] for side in ("right", "wrong")}
    return {"id": name, "prompt": "Q", "domain": domain, "chosen": texts["right"], "rejected": texts["wrong"]}


def _sides(name: str, chosen: str) -> dict[str, Any]:
    """A row of the hub's copy of Multimodal RewardBench 2."""
    responses = {f"response_{side}_text": f"{side} {name}" for side in "ab"}
    prompt = {"prompt_text": "What is in <image_1>?", "prompt_images": [{"bytes": PNG, "path": None}]}
    return {"pair_id": name, **prompt, **responses, "chosen": chosen, "prompt_source": "blink"}


def _by_criterion(number: int, preference: str) -> dict[str, Any]:
    responses = {"response1": f"one {number}", "response2": f"another {number}"}
    return {"id": f"{number}", "prompt": "Q", **responses, "criteria": "Short."} | {
        "criteria_preference": preference
    }


def _clip(area: str) -> dict[str, Any]:
    return {"video": f"{area}.mp4", "question": "Q", "category": area} | {
        "chosen": f"right {area}",
        "rejected": f"wrong {area}",
    }


def _labelled(number: int) -> dict[str, Any]:
    steps = [f"one {number}", "two", "three"]
    response = {"steps": steps, "process_correctness": [1, -1, (1, 0, -1)[number]]}
    return {"image": [], "question": "Q", "response": response, "data_source": "MMMU"}


BENCHMARKS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "comparisons": (
        "own.jsonl",
        [
            {"id": "1", "prompt": "p", "responses": ["a", "b", "c"], "ranks": [0, 1, 2]},
            {"id": "2", "prompt": "q", "responses": ["a", "b"], "ranks": [1, 0]},
            {"id": "3", "prompt": "r", "responses": ["a", "b"], "ranks": [0, 0]},
        ],
    ),
    "mm-rlhf-rewardbench": (
        "mm_reward_bench.jsonl",
        [
            _mm_rlhf("one", "a", "b", "mcq/1.png"),
            _mm_rlhf("one", "a", "c", "mcq/1.png"),
            _mm_rlhf("one", "b", "c", "mcq/1.png"),
            _mm_rlhf("two", "x", "yy", "long/2.png"),
        ],
    ),
    "multimodal-rewardbench": (
        "all_data.json",
        [
            _multimodal("nocaps_1", "open_generation/correctness_task", "Output1"),
            _multimodal("mmmu-s_1", "knowledge", "Output2"),
            _multimodal("pairs_1", "safety", "Output1"),
            _multimodal("RealworldQA_1", "vqa", "Output2"),
        ],
    ),
    "multimodal-rewardbench2": (
        "reasoning/test-00000-of-00001.parquet",
        [_sides(f"blink_{number}", "AB"[number % 2]) for number in range(4)],
    ),
    "omni-rewardbench": (
        "text_to_text_preferences.json",
        [_by_criterion(number, name) for number, name in enumerate(("response1", "response2", "tie"))],
    ),
    "rewardbench": (
        "filtered.parquet",
        [
            _pair(name, at)
            for at, name in enumerate(("alpacaeval-easy", "mt-bench-easy", "math-prm", "hep-cpp"))
        ],
    ),
    "rewardbench2": (
        "test.parquet",
        [
            *(
                _best_of("Ties", f"{kind}:{at}", num, 2)
                for at in (7, 8)
                for kind, num in (("ref", 1), ("tied", 3))
            ),
            _best_of("Focus", "1", 1, 3),
            _best_of("Math", "2", 1, 3),
        ],
    ),
    "rm-bench": (
        "total_dataset.json",
        [_styles("1", "chat"), _styles("2", "math"), _styles("3", "safety-refuse")],
    ),
    "videorewardbench": (
        "videorewardbench.jsonl",
        [_clip(area) for area in ("long", "short", "knowledge", "reasoning", "safety")],
    ),
    "visualprocessbench": ("test.jsonl", [_labelled(number) for number in range(3)]),
    "vlrmbench": (
        "step_correctness.jsonl",
        [
            {
                "id": str(number),
                "image": [],
                "question": "Q",
                "reasoning_error": f"STEP1: one {number}\nSTEP2: two",
                "task_gt": [number % 2, 1 - number % 2],
            }
            for number in range(3)
        ],
    ),
    "vl-rewardbench": (
        "test.parquet",
        [_vl("RLHF-V-1", [0, 1]), _vl("svit-1", [1, 0]), _vl("mathverse_1", [0, 1]), _vl("mmmu_1", [1, 0])],
    ),
}
"""Of each first-party benchmark the name of a file as it is published, and some rows."""
