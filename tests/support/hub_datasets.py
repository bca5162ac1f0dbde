"""The data sets that the recipes train on, in small, in the files and folders that their hubs have.

Rows are made up; their fields, nesting and containers are the published ones.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from layouts import write_lines, write_list, write_parquet
from tiny import image, sentence

NUM_ROWS = 12
"""Rows of each file."""

Row = dict[str, Any]


@cache
def png(number: int) -> bytes:
    """Return one of four encoded images."""
    buffer = io.BytesIO()
    image(*((56, 56), (84, 56), (56, 84), (28, 28))[number % 4], seed=number % 4).save(buffer, "PNG")
    return buffer.getvalue()


def inside(number: int) -> Row:
    """Return an image as Parquet files of the hub hold it."""
    return {"bytes": png(number), "path": f"{number}.png"}


def write_image(path: Path, number: int) -> None:
    """Write an image, the directories on its way included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(number))


def write_frames(directory: Path, names: Iterable[str]) -> None:
    """Write the frames of a video, which are all of one size."""
    directory.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        image(56, 56, seed=number % 4).save(directory / name)


def asked(name: str, number: int) -> str:
    """Return a question that no other row asks."""
    return f"{name} {number}: what is shown in the image, {sentence(number, 4)}?"


def answers(name: str, number: int, count: int = 2) -> list[str]:
    """Return different answers."""
    return [f"{name} {number}.{at} {sentence(7 * number + at, 3 + at)}" for at in range(count)]


def said(role: str, text: str) -> Row:
    """Return a turn as chat formats have it."""
    return {"role": role, "content": text}


def turn(speaker: str, text: str) -> Row:
    """Return a turn as ShareGPT has it."""
    return {"from": speaker, "value": text}


def rlaif_v(place: Path) -> None:
    """`openbmb/RLAIF-V-Dataset`: Parquet shards of no split, images inside."""
    for shard in range(2):
        rows = []
        for number in range(NUM_ROWS):
            chosen, rejected = answers(f"rlaif-v-{shard}", number)
            rows.append(
                {
                    "ds_name": "RLAIF-V",
                    "image": inside(number),
                    "question": asked(f"rlaif-v-{shard}", number),
                    "chosen": chosen,
                    "rejected": rejected,
                    "origin_dataset": "LCS-558K",
                    "origin_split": json.dumps({"model": "OmniLMM", "type": "description"}),
                    "idx": shard * NUM_ROWS + number,
                    "image_path": f"{number}.jpg",
                }
            )
        write_parquet(place / f"RLAIF-V-Dataset_{shard:03}.parquet", rows)


def mmpr(place: Path) -> None:
    """`OpenGVLab/MMPR-v1.2`, unpacked: parts with one image a row, with several, and with none."""
    parts = {"ai2d_correctness_rules": 1, "m3cot_multi": 2, "text_only_dropout_ntp": 0}
    meta = {}
    for part, num_images in parts.items():
        rows = []
        for number in range(NUM_ROWS):
            chosen, rejected = answers(part, number)
            row: Row = {"id": number, "question": asked(part, number), "chosen": chosen, "rejected": rejected}
            names = [f"{part}/{number}-{at}.png" for at in range(num_images)]
            for at, name in enumerate(names):
                write_image(place / "images" / name, number + at)
            if names:
                row["image"] = names[0] if num_images == 1 else names
                row["question"] = "<image>\n" * num_images + row["question"]
            rows.append(row)
        write_lines(place / "annotations" / f"{part}.jsonl", rows)
        meta[part] = {
            "root": "MMPR-v1.2/images",
            "annotation": f"MMPR-v1.2/annotations/{part}.jsonl",
            "data_augment": False,
            "max_dynamic_patch": 12,
            "repeat_time": 1,
            "length": NUM_ROWS,
        }
    (place / "meta.json").write_text(json.dumps(meta, indent=2))


def mm_rlhf(place: Path) -> None:
    """`yifanzhang114/MM-RLHF`: pairs of rankings about images, and about videos as folders of frames."""
    rows = []
    for number, category in enumerate(("long", "mcq", "safety", "short") * 3):
        best, middle, worst = answers("mm-rlhf", number, 3)
        path = f"{category}/{number}.png"
        row: Row = {"id": f"{category}-{number}", "image": path}
        if number in (3, 7):
            del row["image"]
            row["video"] = f"{category}/clip-{number}"
            write_frames(place / row["video"], (f"frame_{frame:04}.png" for frame in range(3)))
        else:
            write_image(place / path, number)
        row |= {"prompt": asked("mm-rlhf", number), "is_tie": False}
        for chosen, rejected in ((best, middle), (best, worst), (middle, worst)):
            pair = {"chosen": chosen, "rejected": rejected}
            reasons = {"chosen_reason": f"{chosen} is right", "rejected_reason": f"{rejected} is wrong"}
            rows.append({**row, **pair, **(reasons if number % 3 else {})})
    write_lines(place / "dpo_pairs.jsonl", rows)
    write_lines(place / "data.jsonl", [{"id": row["id"], "annotations": {}} for row in rows])


def vlfeedback(place: Path) -> None:
    """`MMInstruction/VLFeedback`: four responses a prompt, many with equal ratings."""
    rows = []
    for number in range(NUM_ROWS):
        # (best, two that are equal, worst), all different, or all equal: which is no pair at all.
        scores = ((5, 3, 3, 1), (4, 2, 5, 3), (4, 4, 2, 2))[number % 3] if number != 11 else (3, 3, 3, 3)
        completions = [
            {
                "annotations": {
                    aspect: {"Rating": "N/A" if at == number % 7 == 0 else str(score), "Rationale": "seen"}
                    for aspect in ("Ethical Considerations", "Helpfulness", "Visual Faithfulness")
                },
                "model": f"model-{at}",
                "response": text,
            }
            for at, (score, text) in enumerate(zip(scores, answers("vlfeedback", number, 4), strict=True))
        ]
        rows.append(
            {
                "id": f"svit-{number}",
                "prompt": asked("vlfeedback", number),
                "models": [completion["model"] for completion in completions],
                "completions": completions,
                "image": inside(number),
            }
        )
    write_parquet(place / "data" / "train-00000-of-00001.parquet", rows)


def povid(place: Path) -> None:
    """`YiyangAiLab/POVID_preference_data_for_VLLMs`, with COCO's images beside it."""
    rows = []
    for number in range(NUM_ROWS):
        name = f"{number:012}"
        write_image(place / "coco" / "train2017" / f"{name}.jpg", number)
        question = turn("human", f"<image>\n{asked('povid', number)}")
        chosen, rejected = (turn("gpt", text) for text in answers("povid", number))
        rows.append(
            {
                "id": name,
                "image": f"coco/train2017/{name}.jpg",
                "conversations": [question, chosen],
                "rejected_conversations": [question, rejected],
            }
        )
    write_list(place / "POVID_preference_data_for_VLLMs.json", rows)


def wildvision_battle(place: Path) -> None:
    """`WildVision/wildvision-battle`: votes, ties among them."""
    rows = []
    for number in range(NUM_ROWS):
        question = said("user", asked("wildvision", number))
        first, second = (said("assistant", text) for text in answers("wildvision", number))
        rows.append(
            {
                "question_id": f"question-{number}",
                "model_a": "model-1",
                "model_b": "model-2",
                "conversation_a": [question, first],
                "conversation_b": [question, second],
                "language": "English",
                "image": inside(number),
                "turn": 2,
                "anony": True,
                "winner": ("model_a", "model_b", "tie", "tie (bothbad)")[number % 4],
                "tstamp": 1.7e9 + number,
                "judge": "arena_user",
                "domain": [],
            }
        )
    write_parquet(place / "data" / "train-00000-of-00001.parquet", rows)


def chats(name: str, number: int) -> Row:
    """Return a row of the Tulu family."""
    question = asked(name, number)
    chosen, rejected = ([said("user", question), said("assistant", text)] for text in answers(name, number))
    return {"id": f"{name}-{number}", "prompt": question, "chosen": chosen, "rejected": rejected}


WILDCHAT_SPLITS = {
    "wildchat_if": 10_792,
    "reused_on_policy_8b": 17_207,
    "if_on_policy_70b": 10_793,
    "unused": 82_783,
    "reused_on_policy_70b": 17_242,
}
"""The splits of WildChat, and the rows that each has as published."""


def wildchat(place: Path) -> None:
    """`allenai/tulu-3-wildchat-ultrafeedback`: five splits, and none called train."""
    for split in WILDCHAT_SPLITS:
        rows = [chats(f"wildchat-{split}", number) for number in range(NUM_ROWS)]
        write_parquet(place / "data" / f"{split}-00000-of-00001.parquet", rows)


def tulu3_if(place: Path) -> None:
    """`allenai/tulu-3-IF-augmented-on-policy-70b`."""
    rows = [chats("tulu3-if", number) for number in range(NUM_ROWS)]
    write_parquet(place / "data" / "train-00000-of-00001.parquet", rows)


def olmo2(place: Path) -> None:
    """`allenai/olmo-2-0425-1b-preference-mix`."""
    rows = [
        {
            **chats("olmo2", number),
            "chosen_rating": 4.5,
            "rejected_rating": 2.0 + number % 3,
            "chosen_model": "model-1",
            "rejected_model": "model-2",
            "source": "wildchat",
        }
        for number in range(NUM_ROWS)
    ]
    write_parquet(place / "data" / "train-00000-of-00001.parquet", rows)


def swe_arena(place: Path) -> None:
    """`bigcode/bigcodearena-preference-5k`, whose schema swe-arena's has too."""
    votes = ("vote_left", "vote_right", "vote_tie", "vote_both_bad")
    rows = []
    for number in range(NUM_ROWS):
        question = asked("swe-arena", number)
        first, second = answers("swe-arena", number)
        rows.append(
            {
                "instruction": question,
                "feedback": {"vote_type": votes[number % 4]},
                "states": {
                    model: {"messages": [["user", question], ["assistant", text]], "model_name": model}
                    for model, text in (("model_A", first), ("model_B", second))
                },
            }
        )
    write_parquet(place / "data" / "train-00000-of-00001.parquet", rows)


def ultrafeedback(place: Path) -> None:
    """`openbmb/UltraFeedback`: a JSONL file a source."""
    aspects = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    for source in ("evol_instruct", "sharegpt"):
        rows = []
        for number in range(NUM_ROWS):
            scores = (6.0,) * 4 if (source, number) == ("sharegpt", 3) else (7.5, 4.0, 8.0, 4.0)
            texts = answers(source, number, 4)
            completions = [
                {
                    "annotations": {
                        aspect: {"Rating": str(int(score / 2)), "Rationale": "read"} for aspect in aspects
                    },
                    "custom_system_prompt": "You are helpful.",
                    "model": f"model-{at}",
                    "principle": "helpfulness",
                    "response": text,
                    "critique": "good",
                    "overall_score": score,
                    "fine-grained_score": score / 2,
                }
                for at, (score, text) in enumerate(zip(scores, texts, strict=True))
            ]
            rows.append(
                {
                    "source": source,
                    "instruction": asked(source, number),
                    "models": [completion["model"] for completion in completions],
                    "completions": completions,
                    "correct_answers": ["None"],
                    "incorrect_answers": ["None"],
                }
            )
        write_lines(place / f"{source}.jsonl", rows)


def shp(place: Path) -> None:
    """`stanfordnlp/SHP`: a directory a forum, each with JSON lines of three splits."""
    for forum in ("askbaking", "askculinary"):
        for split in ("train", "validation", "test"):
            rows = []
            for number in range(NUM_ROWS):
                first, second = answers(f"{forum} {split}", number)
                rows.append(
                    {
                        "post_id": f"{forum}-{split}-{number}",
                        "domain": f"{forum}_{split}",
                        "upvote_ratio": 0.98,
                        "history": asked(f"{forum} {split}", number),
                        "c_root_id_A": "a",
                        "c_root_id_B": "b",
                        "created_at_utc_A": 1.6e9,
                        "created_at_utc_B": 1.6e9,
                        "score_A": 340,
                        "score_B": 166,
                        "human_ref_A": first,
                        "human_ref_B": second,
                        "labels": number % 2,
                        "seconds_difference": 10.0,
                        "score_ratio": 2.05,
                    }
                )
            write_lines(place / forum / f"{split}.json", rows)


def mmif(place: Path) -> None:
    """`ChrisDing1105/MMIF-23k`: rows for fine-tuning and rows for DPO in files of their own."""
    pairs, tuning = [], []
    for number in range(NUM_ROWS):
        write_image(place / "images" / f"{number}.png", number)
        question = {"value": asked("mmif", number)}
        chosen, rejected = ({"value": text} for text in answers("mmif", number))
        images = [f"images/{number}.png"]
        pairs.append({"conversations": [question], "chosen": chosen, "rejected": rejected, "images": images})
        tuning.append({"conversations": [question, chosen], "images": images})
    write_list(place / "mmif_23k_dpo.json", pairs)
    write_list(place / "mmif_23k_sft.json", tuning)


def omnialign_v_dpo(place: Path) -> None:
    """`PhoenixZ/OmniAlign-V-DPO`: a JSONL file a kind, the archive of images unpacked beside them."""
    for kind in ("chart", "knowledge"):
        rows = []
        for number in range(NUM_ROWS):
            write_image(place / "images" / kind / f"{number}.png", number)
            chosen, rejected = answers(kind, number)
            rows.append(
                {
                    "id": f"{kind}-{number}",
                    "image": f"images/{kind}/{number}.png",
                    "question": f"<image>\n{asked(kind, number)}",
                    "chosen": chosen,
                    "rejected": rejected,
                }
            )
        write_lines(place / f"{kind}.jsonl", rows)


def llava_critic(place: Path) -> None:
    """`lmms-lab/llava-critic-113k`: two configurations in directories of their own."""
    pairwise, pointwise = [], []
    for number in range(NUM_ROWS):
        first, second = answers("llava-critic", number)
        given = f"<image>\nPlease judge.\nQuestion: [{asked('llava-critic', number)}]\n"
        better = ("first", "second")[number % 2]
        pair = f"{given}The first response: [{first}]\nThe second response: [{second}]\nASSISTANT:\n"
        common = {"id": f"critic-{number}", "image": inside(number), "source": "vlfeedback"}
        verdict = turn("gpt", f"It is seen. The better response: [{better}]")
        pairwise.append({**common, "conversations": [turn("human", pair), verdict]})
        scored = f"{given}Response: [{first}]\nASSISTANT:\n"
        pointwise.append({**common, "conversations": [turn("human", scored), turn("gpt", "Score: 4")]})
    write_parquet(place / "pairwise" / "train-00000-of-00001.parquet", pairwise)
    write_parquet(place / "pointwise" / "train-00000-of-00001.parquet", pointwise)


def skywork_reward(place: Path) -> None:
    """`Skywork/Skywork-Reward-Preference-80K-v0.2`."""
    rows = []
    for number in range(NUM_ROWS):
        row = chats("skywork", number)
        rows.append({"chosen": row["chosen"], "rejected": row["rejected"], "source": "magpie"})
    write_parquet(place / "data" / "train-00000-of-00001.parquet", rows)


DATA_SETS: Mapping[str, Callable[[Path], None]] = {
    "RLAIF-V-Dataset": rlaif_v,
    "MMPR-v1.2": mmpr,
    "MM-RLHF": mm_rlhf,
    "VLFeedback": vlfeedback,
    "POVID": povid,
    "wildvision-battle": wildvision_battle,
    "tulu-3-wildchat-ultrafeedback": wildchat,
    "swe-arena-preference-5k": swe_arena,
    "tulu-3-IF-augmented-on-policy-70b": tulu3_if,
    "olmo-2-0425-1b-preference-mix": olmo2,
    "UltraFeedback": ultrafeedback,
    "SHP": shp,
    "MMIF-23k": mmif,
    "OmniAlign-V-DPO": omnialign_v_dpo,
    "llava-critic-113k": llava_critic,
    "Skywork-Reward-Preference-80K-v0.2": skywork_reward,
}
"""Data sets by the names of their directories in `data/`."""


def traces(path: Path) -> None:
    """Write rows of our own with the texts of a judge that reasons, as the recipes say that they are."""
    rows = []
    for number in range(NUM_ROWS):
        write_image(path.parent / "traces" / f"{number}.png", number)
        texts = answers("traces", number)
        judgements = [
            {
                "first": first,
                "second": 1 - first,
                "text": f"<think>it is seen</think><answer>{1 + first}</answer>",
            }
            for first in range(number % 3)  # none, one order, or both
        ]
        rows.append(
            {
                "prompt": asked("traces", number),
                "images": [f"traces/{number}.png"],
                "responses": texts,
                "ranks": [0, 1],
                "meta": {"judgements": judgements},
            }
        )
    write_lines(path, rows)


def texts_of_judge(path: Path) -> None:
    """Write rows of texts with what a judge wrote on them."""
    rows = []
    for number in range(NUM_ROWS):
        text = "<think>it is seen</think><answer>1</answer>"
        judgements = [{"first": 0, "second": 1, "text": text}]
        row = {"prompt": asked("judge", number), "responses": answers("judge", number), "ranks": [0, 1]}
        rows.append({**row, "meta": {"judgements": judgements}})
    write_lines(path, rows)


def write_data_sets(data: Path) -> None:
    """Write all of them, and the files of our own that recipes read beside them, to a directory."""
    for name, write in DATA_SETS.items():
        (data / name).mkdir(parents=True)
        write(data / name)
    traces(data / "r1-reward-traces.jsonl")
    for split in ("train", "eval"):
        write_lines(data / f"texts-{split}.jsonl", [chats(f"own-{split}", at) for at in range(NUM_ROWS)])


def ratings(path: Path) -> None:
    """Write the source distribution of vaderSentiment, with some rated texts in each of its four sets."""
    name = "hutto_ICWSM_2014"
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for kind in ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets"):
            truth, raters = [], []
            for number in range(60):
                given = [number % 5 - 2, (number + 1) % 4]
                mean = sum(given) / len(given)
                truth.append(f"{number}\t{mean}\t{kind} {number} {sentence(number, 4)}")
                raters.append(f"{number}\t{mean}\t1.0\t{given}")
            for suffix, lines in (("GroundTruth", truth), ("anonDataRatings", raters)):
                _add(archive, f"{name}/{kind}_{suffix}.txt", "\n".join(lines).encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode="w:gz") as archive:
        _add(archive, f"vaderSentiment-3.3.2/additional_resources/{name}.tar.gz", inner.getvalue())


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def small_study(place: Path) -> None:
    """Write the data that `recipes/studies/prepare.py` and `prepare_shortcuts.py` make of installed packages:
    captions of images, and rated texts.
    """
    for split in ("train", "validation", "test"):
        write_captions(place, f"captions-{split}", 4)
        judgements = [
            {"first": first, "second": 1 - first, "text": f"<think>shown</think><answer>{1 + first}</answer>"}
            for first in (0, 1)
        ]
        meta = {"critiques": ["is shown", "is not shown"], "judgements": judgements}
        write_captions(place, f"caption-pairs-{split}", 2, meta=meta)
    for shortcut in ("marker", "topic"):
        for part in ("as-trained", "useless", "misleading", "train-a", "train-b"):
            write_captions(place, f"{shortcut}-{part}", 2, source=part.replace("-", " "))
        for half in ("train-a", "train-b"):
            write_captions(place, f"{shortcut}-{half}-text", 2, has_images=False)
            write_captions(place, f"{shortcut}-{half}-weighted", 2, weight=0.5)
    for kind in ("movies", "movie-pairs", "products", "news", "tweets"):
        ratings = [2, -1] if kind.endswith("pairs") else [2, 1.5, 0, -1]
        for split in ("train", "test"):
            rows = []
            for number in range(NUM_ROWS):
                texts = answers(f"{kind} {split}", number, len(ratings))
                row = {"prompt": "Say something favourable.", "responses": texts}
                rows.append({**row, "ratings": ratings, "source": f"human-ratings {kind}"})
            write_lines(place / f"{kind}-{split}.jsonl", rows)


def write_captions(
    place: Path, name: str, num_responses: int, *, has_images: bool = True, **fields: object
) -> None:
    """Write rows whose first response is the caption of the image, with more fields in each."""
    rows = []
    for number in range(NUM_ROWS):
        texts = answers(name, number, num_responses)
        row = {"prompt": asked(name, number), "responses": texts, "ranks": [0, *[1] * (num_responses - 1)]}
        if has_images:
            row["images"] = [f"{name}/{number}.png"]
            write_image(place / name / f"{number}.png", number)
        rows.append({"source": "openmoji", **row, **fields})
    write_lines(place / f"{name}.jsonl", rows)
