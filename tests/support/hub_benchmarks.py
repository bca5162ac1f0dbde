"""The benchmarks of the recipes, in small, in the files and folders that their hubs have."""

from __future__ import annotations

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
