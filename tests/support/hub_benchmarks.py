"""The benchmarks of the recipes, in small, in the files and folders that their hubs have."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from hub_datasets import Row, answers, asked, inside, write_frames, write_image
from layouts import write_lines, write_list, write_parquet


def vl_rewardbench(place: Path) -> None:
    """`MMInstruction/VL-RewardBench`, with an id that occurs twice."""
    names = ("hallucination_pair-1", "RLAIF-V-2", "RLHF-V-3", "mathverse_4", "mmmu-5", "wildvision-6")
    rows = []
    for number, name in enumerate([*names, *names[3:5], *(f"{name}9" for name in names[:4])]):
        rows.append(
            {
                "id": name,
                "query": asked("vlrb", number),
                "response": answers("vlrb", number),
                "image": inside(number),
                "human_ranking": [1, 0] if number == 2 else [0, 1],
                "models": ["model-1", "model-2"],
                "judge": "human",
                "rationale": "",
                "query_source": "",
                "ground_truth": "",
            }
        )
    write_parquet(place / "data" / "test-00000-of-00001.parquet", rows)


def mm_rlhf_rewardbench(place: Path) -> None:
    """`yifanzhang114/MM-RLHF-RewardBench`: images in one flat folder, videos as folders of frames there."""
    rows = []
    for number, category in enumerate(("mcq", "long", "short", "safety", "video")):
        row: Row = {"id": f"{category}-1", "prompt": asked("mmrlhf", number)}
        if category == "video":
            row["video"] = "video/clip-1"
            names = (f"c01_{frame:04}.png" for frame in range(40))
            write_frames(place / "images" / "clip-1", names)
        else:
            row["image"] = f"{category}/{number}.png"
            write_image(place / "images" / f"{number}.png", number)
        for pair in range(2 if number < 4 else 3):
            chosen, rejected = answers(f"mmrlhf {pair}", number)
            reasons = {"chosen_reason": "right", "rejected_reason": "wrong"}
            rows.append({**row, "chosen": chosen, "rejected": rejected, **reasons})
    write_lines(place / "mm_reward_bench.jsonl", rows)
    texts = [{key: row[key] for key in ("id", "prompt", "chosen", "rejected")} for row in rows]
    write_parquet(place / "data" / "train-00000-of-00001.parquet", texts)


def multimodal_rewardbench(place: Path) -> None:
    """`facebookresearch/multimodal_rewardbench` after its download script."""
    kinds = (
        ("nocaps-1", "open_generation/correctness_task"),
        ("visitbench-2", "open_generation/preference_task"),
        ("mmmu-s-3", "knowledge"),
        ("mathvista-4", "reasoning"),
        ("emma-coding-5", "reasoning"),
        ("pairs-6", "safety"),
        ("RealworldQA-7", "vqa"),
    )
    rows = []
    for number, (name, category) in enumerate(kinds * 2):
        path = f"images/{name.partition('-')[0]}/{number}.jpg"
        write_image(place / "data" / path, number)
        first, second = answers("mmrb", number)
        rows.append(
            {
                "ID": f"{name}-{number}",
                "Text": asked("mmrb", number),
                "Image": path,
                "Output1": first,
                "Output2": second,
                "Better": ("Output1", "Output2")[number % 2],
                "Category": category,
            }
        )
    write_list(place / "data" / "all_data.json", rows)


def rewardbench(place: Path) -> None:
    """`allenai/reward-bench`: rows of each section, and an unfiltered split beside them."""
    from basereward.evaluation.benchmarks.rewardbench import SECTIONS

    subsets = [name for weights in SECTIONS.values() for name in list(weights)[:4]]
    rows = []
    for number, subset in enumerate(subsets):
        chosen, rejected = answers("rewardbench", number)
        rows.append(
            {
                "prompt": asked("rewardbench", number),
                "chosen": chosen,
                "chosen_model": "model-1",
                "rejected": rejected,
                "rejected_model": "model-2",
                "subset": subset,
                "id": number,
            }
        )
    write_parquet(place / "data" / "filtered-00000-of-00001.parquet", rows)
    write_parquet(place / "data" / "raw-00000-of-00001.parquet", rows[:1])


def rm_bench(place: Path) -> None:
    """`THU-KEG/RM-Bench`."""
    rows = []
    for number, domain in enumerate(("chat", "code", "math", "safety-refuse", "safety-response") * 2):
        texts = answers("rm-bench", number, 6)
        rows.append(
            {
                "id": f"{domain}-{number}",
                "prompt": asked("rm-bench", number),
                "chosen": texts[:3],
                "rejected": texts[3:],
                "domain": domain,
            }
        )
    write_list(place / "total_dataset.json", rows)


def videorewardbench(place: Path) -> None:
    """`Dragonriser/VideoRewardBench`: two pairs of one video, and one of each area."""
    areas = ("Long-form Perception", "Short-form Perception", "Knowledge", "Reasoning", "Safety")
    rows = []
    for number, area in enumerate([*areas, *areas, areas[0]]):
        clip = f"clip-{number % 10}"
        write_frames(place / "videos" / clip, (f"{frame:04}.png" for frame in range(3)))
        chosen, rejected = answers("videorewardbench", number)
        rows.append(
            {
                "id": f"vrb-{number}",
                "video": clip,
                "question": asked("videorewardbench", number),
                "chosen": chosen,
                "rejected": rejected,
                "category": area,
            }
        )
    write_lines(place / "videorewardbench.jsonl", rows)


def _part(side: str, number: int, *, holds_image: bool) -> Row:
    """A response of Multimodal RewardBench 2."""
    text = answers("mmrb2", number)["ab".index(side)]
    content = [["text", text], *([["image", f"images/{number}_{side}.jpg"]] if holds_image else [])]
    return {"model_name": f"model-{side}", "response_content": content}


def multimodal_rewardbench2(place: Path) -> None:
    """`facebookresearch/MMRB2` after its build: four tasks, of which the reasoning task has some texts."""
    for task, num in (("t2i", 2), ("edit", 3), ("interleaved", 1), ("reasoning", 14)):
        pairs = []
        for number in range(num):
            write_image(place / "input_images" / f"{task}-{number}.jpg", number)
            holds_image = task != "reasoning" or number % 7 == 3
            pairs.append(
                {
                    "id": f"{task}-{number}",
                    "prompt_content": [
                        ["image", f"input_images/{task}-{number}.jpg"],
                        ["text", asked("mmrb2", number)],
                    ],
                    "prompt_source": ("blink", "muirbench", "vstar")[number % 3],
                    "prompt_metadata": {"id": f"question-{number // 2}"},
                    "response_a": _part("a", number, holds_image=holds_image),
                    "response_b": _part("b", number, holds_image=False),
                    "chosen": "B" if number % 3 else "A",
                    "human_annotations": [],
                }
            )
        (place / f"{task}.json").parent.mkdir(parents=True, exist_ok=True)
        (place / f"{task}.json").write_text(json.dumps({"pairs": pairs}))


OMNI_MEDIA = {"text_image_to_text": "image", "text_video_to_text": "video", "text_audio_to_text": "audio"}


def omni_rewardbench(place: Path) -> None:
    """`HongbangYuan/OmniRewardBench`, its JSON files: nine tasks, ties, two criteria for a pair."""
    preferences = ("response1", "response2", "tie", "response2")
    others = ("to_image", "to_video", "to_audio", "to_3D", "image_to_image")
    for task in ("text_to_text", *OMNI_MEDIA, *(f"text_{other}" for other in others)):
        rows = []
        for number in range(8):
            first, second = answers(f"omni {task}", number // 2)
            row: Row = {
                "prompt": asked(f"omni {task}", number // 2),
                "response1": first,
                "response2": second,
                "model1": "model-1",
                "model2": "model-2",
                "criteria": f"criterion {number % 2}: the answer is short",
                "criteria_preference": preferences[number % 4],
                "id": f"{task}-{number}",
            }
            kind = OMNI_MEDIA.get(task)
            if kind == "image":
                row["image"] = f"images/{number}.png"
                write_image(place / "media_data" / "images" / f"{number}.png", number)
            elif kind == "video":
                row["video"] = f"videos/{number}"
                write_frames(place / "media_data" / "videos" / str(number), ("1.png", "2.png"))
            elif kind:
                row["audio"] = f"sounds/{number}.wav"
            rows.append(row)
        write_list(place / f"{task}_preferences.json", rows)


def vlrmbench(place: Path) -> None:
    """`JCruan519/VLRMBench`: twelve tasks, eight of them with a label for each step."""
    from basereward.evaluation.benchmarks.vlrmbench import OTHERS, STEPS

    for task in STEPS:
        rows = []
        for number in range(6):
            num = 2 + number % 3
            texts = answers(f"vlrmbench {task}", number, num)
            steps = [f"STEP{at}: {text}.\n\n" for at, text in enumerate(texts, start=1)]
            write_image(place / "meta_data" / "Image" / "dynamath" / f"{number}.png", number)
            rows.append(
                {
                    "id": f"{number:032x}",
                    "image": [f"dynamath/{number}.png"],
                    "question": asked("vlrmbench", number),
                    "step_list": steps,
                    "reasoning_error": "\n".join(steps),
                    "task_gt": [int((number + at) % 3 == 1) for at in range(num)],
                    "category": task,
                }
            )
        write_lines(place / "benchmark_data" / f"{task}.jsonl", rows)
    for task in OTHERS:
        rows = [{"id": f"{number}", "question": "Q", "task_gt": [0]} for number in range(2)]
        write_lines(place / "benchmark_data" / f"{task}.jsonl", rows)


def visualprocessbench(place: Path) -> None:
    """`OpenGVLab/VisualProcessBench`: labels of steps, neutral ones and a solution of one step among them."""
    rows = []
    for number in range(10):
        steps = answers("visualprocessbench", number, 1 + number % 4)
        write_image(place / "images" / f"{number}.png", number)
        rows.append(
            {
                "image": [f"images/{number}.png"],
                "question": asked("visualprocessbench", number),
                "answer": "4",
                "response": {
                    "steps": steps,
                    "process_correctness": [(1, -1, 0, 1)[(number + at) % 4] for at in range(len(steps))],
                },
                "policy_model": "model-1",
                "data_source": ("MathVision", "MMMU")[number % 2],
            }
        )
    # A solution all of whose steps are neutral has nothing to count.
    rows = [row for row in rows if any(row["response"]["process_correctness"])]
    write_lines(place / "test.jsonl", rows)


BENCHMARKS: Mapping[str, Callable[[Path], None]] = {
    "VL-RewardBench": vl_rewardbench,
    "MM-RLHF-RewardBench": mm_rlhf_rewardbench,
    "multimodal_rewardbench": multimodal_rewardbench,
    "reward-bench": rewardbench,
    "RM-Bench": rm_bench,
}
"""Benchmarks by the names of their directories in `data/`."""


def write_benchmarks(data: Path) -> None:
    """Write all of them to a directory."""
    for name, write in BENCHMARKS.items():
        (data / name).mkdir(parents=True)
        write(data / name)
