"""Each published data set, read in its real format, means what its publishers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import published
import pytest
from published import ASKED, CHAT, SETS, said, turn, write_rows, write_set

from basereward import Comparison, DataError
from basereward.config import Component
from basereward.data import Dataset
from basereward.data.published.mm_rlhf import ranking
from basereward.plugins import PluginManager
from basereward.plugins.builtin import basereward_datasets


def opened(name: str, path: Path, **options: Any) -> Dataset:
    return PluginManager().build("dataset", Component(name, {"path": str(path), **options}))


def only(name: str, path: Path, **options: Any) -> Comparison:
    dataset = opened(name, path, **options)
    dataset.on_bad_row = "fail"
    [comparison] = dataset
    return comparison


def read(tmp_path: Path, name: str, *rows: Any, **options: Any) -> tuple[list[Comparison], list[str]]:
    (tmp_path / "cat.png").write_bytes(published.image())
    file = write_rows(tmp_path / "rows.jsonl", list(rows), "jsonl")
    dataset = opened(name, file, **options)
    found = list(dataset)
    return found, [str(error).removeprefix(f"{file}:") for error in dataset.rejected]


def test_every_registered_data_set_has_a_fixture() -> None:
    assert sorted(SETS) == sorted(basereward_datasets())


@pytest.mark.parametrize("name", SETS)
def test_a_row_in_the_real_format_becomes_its_comparison(tmp_path: Path, name: str) -> None:
    expected = SETS[name]
    comparison = only(name, write_set(tmp_path, name), **expected.options)
    [message] = comparison.prompt
    assert (message.role, message.text.strip()) == ("user", expected.prompt.strip())
    assert list(comparison.responses) == expected.responses
    assert comparison.ranks is not None
    assert list(comparison.ranks) == expected.ranks
    assert comparison.ratings == (None if expected.ratings is None else pytest.approx(expected.ratings))
    assert [image.open().getpixel((0, 0)) for image in comparison.images] == [
        (255, 0, 0)
    ] * expected.num_images
    if expected.id is not None:
        assert comparison.id == expected.id


@pytest.mark.parametrize("name", [name for name in SETS if SETS[name].container == "parquet"])
def test_a_parquet_set_is_read_alike_from_what_datasets_saves(tmp_path: Path, name: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    file = write_set(tmp_path, name)
    saved = tmp_path / "saved"
    saved.mkdir()
    table = pyarrow.parquet.read_table(file)
    with pyarrow.ipc.new_stream(str(saved / "data-00000-of-00001.arrow"), table.schema) as stream:
        stream.write_table(table)
    (saved / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": "train"})
    )
    options = {**SETS[name].options, "source": "set"}
    from_arrow, from_parquet = (only(name, path, **options) for path in (saved, file))
    assert (from_arrow.prompt, from_arrow.responses, from_arrow.ranks, from_arrow.ratings) == (
        from_parquet.prompt,
        from_parquet.responses,
        from_parquet.ranks,
        from_parquet.ratings,
    )


def test_ranks_that_pairs_say_and_no_more() -> None:
    # a > b > c, all three pairs: a ranking.
    assert ranking([("a", "b", False), ("b", "c", False), ("a", "c", False)]) == {"a": 0, "b": 1, "c": 2}
    # a over b and c, which no pair ranks: they are tied, as a pair may say.
    assert ranking([("a", "b", False), ("a", "c", False)]) == {"a": 0, "b": 1, "c": 1}
    assert ranking([("a", "b", False), ("a", "c", False), ("b", "c", True)]) == {"a": 0, "b": 1, "c": 1}
    # a > b > c without a > c: ranks would say what no pair does.
    assert ranking([("a", "b", False), ("b", "c", False)]) is None
    # A circle, and two pairs that have nothing in common.
    assert ranking([("a", "b", False), ("b", "a", False)]) is None
    assert ranking([("a", "b", False), ("b", "c", False), ("c", "a", False)]) is None
    assert ranking([("a", "b", False), ("b", "c", False), ("a", "c", True)]) is None


def test_pairs_that_make_no_ranking_stay_pairs_and_ties_are_ties(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "b", "rejected": "c"},
        {"prompt": "q", "chosen": "x", "rejected": "y", "is_tie": True},
        {"prompt": "r", "chosen": "x", "rejected": 5},
        {"prompt": "r", "chosen": "x", "rejected": "y"},
    ]
    found, rejected = read(tmp_path, "mm-rlhf", *rows)
    assert [(item.responses, item.ranks) for item in found] == [
        (("a", "b"), (0, 1)),
        (("b", "c"), (0, 1)),
        (("x", "y"), (0, 0)),
        (("x", "y"), (0, 1)),
    ]
    assert rejected == ["4: rejected: must be a text, not a int"]


def test_a_video_of_mm_rlhf_is_a_folder_of_frames(tmp_path: Path) -> None:
    (tmp_path / "video" / "clip").mkdir(parents=True)
    for number in (10, 2):
        (tmp_path / "video" / "clip" / f"{number}.png").write_bytes(published.image())
    row = {"prompt": "<video>\nWhat happens?", "video": "video/clip", "chosen": "a", "rejected": "b"}
    [comparison], _ = read(tmp_path, "mm-rlhf", row)
    assert [Path(frame.name).name for frame in comparison.videos[0].frames] == ["2.png", "10.png"]


def test_reasons_of_mm_rlhf_are_the_critiques_of_the_responses_they_are_about(tmp_path: Path) -> None:
    pairs = [("a", "b", "true", None), ("a", "c", "true", "false"), ("b", "c", " ", "false")]
    rows = [
        {
            "id": "1",
            "prompt": "p",
            "chosen": better,
            "rejected": worse,
            "chosen_reason": why,
            "rejected_reason": not_,
        }
        for better, worse, why, not_ in pairs
    ]
    [comparison], _ = read(tmp_path, "mm-rlhf", *rows)
    assert comparison.responses == ("a", "b", "c")
    assert comparison.meta["critiques"] == ["true", None, "false"]


def test_the_pairs_of_mm_rlhf_are_found_in_its_directory(tmp_path: Path) -> None:
    write_rows(tmp_path / "data.jsonl", [{"other": 1}], "jsonl")
    write_rows(tmp_path / "dpo_pairs.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}], "jsonl")
    assert only("mm-rlhf", tmp_path).responses == ("a", "b")


def test_ultra_hard_is_best_and_worst(tmp_path: Path) -> None:
    file = write_set(tmp_path, "ultrafeedback")
    hard = only("ultrafeedback", file, subset="hard")
    # Of 7.5, 4, 8 and 4 the largest is c, and of the smallest the first is b.
    assert (hard.responses, hard.ratings) == (("b", "c"), (4, 8))
    row = SETS["ultrafeedback"].rows[0]
    tied = [{**completion, "overall_score": 5} for completion in row["completions"]]
    _, rejected = read(tmp_path, "ultrafeedback", {**row, "completions": tied}, subset="hard")
    assert rejected == ["1: all responses have the same rating, so no pair is the one that differs most"]


def test_fine_grained_scores_are_the_mean_of_the_aspects(tmp_path: Path) -> None:
    def completion(text: str, *ratings: str) -> dict[str, Any]:
        aspects = ("instruction_following", "honesty", "truthfulness", "helpfulness")
        found = zip(aspects, ratings, strict=True)
        return {"response": text, "annotations": {aspect: {"Rating": rating} for aspect, rating in found}}

    row = {
        "instruction": "p",
        "completions": [completion("a", "5", "N/A", "4", "3"), completion("b", "1", "2", "1", "2")],
    }
    [found], _ = read(tmp_path, "ultrafeedback", row, score="fine-grained")
    assert found.ratings == (4.0, 1.5)  # (5 + 4 + 3) / 3 and (1 + 2 + 1 + 2) / 4


def test_equal_texts_are_one_response_with_the_mean_of_their_ratings(tmp_path: Path) -> None:
    completions = [
        {"response": text, "overall_score": score} for text, score in [("a", 2), ("b", 5), ("a", 4), ("", 9)]
    ]
    [found], _ = read(tmp_path, "ultrafeedback", {"instruction": "p", "completions": completions})
    assert (found.responses, found.ratings) == (("a", "b"), (3, 5))
    _, rejected = read(tmp_path, "ultrafeedback", {"instruction": "p", "completions": completions[::2]})
    assert rejected == ["1: responses: fewer than two different responses have a rating"]


@pytest.mark.parametrize(
    ("given", "verdict", "expected"),
    [
        (
            "Question: [Which?]\nResponse 1: [a [1]]\nResponse 2: [b]\n",
            "So. The better response: [1]",
            ("Which?", ("a [1]", "b"), (0, 1), None),
        ),
        (
            "Question: [Which?]\nResponse A: [a]\nResponse B: [b]",
            "Thus both responses are equally good.",
            ("Which?", ("a", "b"), (0, 0), None),
        ),
        (
            "<|User Prompt|>\nWhich?\n\n<|The Start of Assistant A's Answer|>\na\n<|The End of Assistant A's "
            "Answer|>\n\n<|The Start of Assistant B's Answer|>\nb\n<|The End of Assistant B's Answer|>",
            "My final verdict is: [[B>>A]]",
            ("Which?", ("a", "b"), (1, 0), None),
        ),
        (
            "[Question]\nWhich?\n\n[Assistant 1]\na\n\n[End of Assistant 1]\n\n[Assistant 2]\nb\n\n"
            "[End of Assistant 2]\n\n[System] ...",
            "7 8.5\nThe second is better.",
            ("Which?", ("a", "b"), (1, 0), (7, 8.5)),
        ),
        (
            "Text Caption: a cat on a mat\nFrom 0 to 100, how well does it describe the image?",
            "Explanation: fine.\nFinal Score: 85",
            ("Describe this image in detail.", ("a cat on a mat",), (0,), (85,)),
        ),
    ],
)
def test_every_form_of_llava_critic_is_taken_apart(
    tmp_path: Path, given: str, verdict: str, expected: tuple[Any, ...]
) -> None:
    row = {"conversations": [turn("human", f"<image>\n{given}"), turn("gpt", verdict)], "image": "cat.png"}
    [found], _ = read(tmp_path, "llava-critic", row)
    assert (found.prompt[0].text, found.responses, found.ranks, found.ratings) == expected


def test_a_judgement_of_another_form_is_refused(tmp_path: Path) -> None:
    row = {"conversations": [turn("human", "Question: [q]\nResponse 1: [a]"), turn("gpt", "?")]}
    _, rejected = read(tmp_path, "llava-critic", row)
    assert rejected == ["1: conversations: question, responses or verdict are of no known form"]


@pytest.mark.parametrize(
    ("winner", "ranks"),
    [("model_a", (0, 1)), ("model_b", (1, 0)), ("tie", (0, 0)), ("tie (bothbad)", (0, 0))],
)
def test_votes_of_battles(tmp_path: Path, winner: str, ranks: tuple[int, int]) -> None:
    row = {"conversation_a": [*CHAT, said("a")], "conversation_b": [*CHAT, said("b")], "winner": winner}
    [found], _ = read(tmp_path, "wildvision-battle", row)
    assert found.ranks == ranks


def test_a_battle_that_parts_before_the_last_answer_is_refused(tmp_path: Path) -> None:
    more = said("And now?", "user")
    row = {
        "conversation_a": [*CHAT, said("a"), more, said("c")],
        "conversation_b": [*CHAT, said("b"), more, said("d")],
        "winner": "model_a",
    }
    _, rejected = read(tmp_path, "wildvision-battle", row, {**row, "winner": "nobody"})
    assert rejected == [
        "1: chosen: the response must be one assistant message, not assistant, user, assistant",
        "2: winner: unknown winner 'nobody'; winners: model_a, model_b, tie, tie (bothbad), bothbad",
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [*CHAT, said("a")], "rejected_response": "b"},
        {"messages": [*CHAT, said("a")], "rejected_messages": [*CHAT, said("b")]},
        {"conversations": [turn("human", ASKED)], "chosen": "a", "rejected": turn("gpt", "b")},
        {"messages": [*CHAT, said("a")], "rejected_response": "b", "images": [], "rejected_images": []},
    ],
)
def test_the_dialects_of_sharegpt_mean_the_same(tmp_path: Path, row: dict[str, Any]) -> None:
    [found], _ = read(tmp_path, "sharegpt", row)
    assert (found.prompt[0].text, found.responses, found.ranks) == (ASKED, ("a", "b"), (0, 1))


def test_a_response_has_no_images_of_its_own(tmp_path: Path) -> None:
    row = {"messages": [*CHAT, said("a")], "rejected_response": "b", "images": ["cat.png"]}
    found, rejected = read(
        tmp_path,
        "sharegpt",
        {**row, "rejected_images": ["cat.png"]},
        {**row, "rejected_images": ["dog.png"]},
        {**row, "system": "Be brief."},
    )
    assert [message.role for message in found[1].prompt] == ["system", "user"]
    assert rejected == ["2: rejected_images: differ from images, but a response has no images of its own"]


def test_preferences_of_helpsteer_are_ratings(tmp_path: Path) -> None:
    second = {"prompt": "p", "response_1": "a", "response_2": "b", "preference_strength": 2}
    third = {"context": CHAT, "response1": "a", "response2": "b", "overall_preference": -3}
    found, _ = read(tmp_path, "helpsteer", second, second, third)
    assert [(item.responses, item.ratings) for item in found] == [
        (("a", "b"), (0, 2)),
        (("a", "b"), (0, 2)),
        (("a", "b"), (0, -3)),
    ]


def test_all_that_helpsteer_rates_is_kept_by_response(tmp_path: Path) -> None:
    first = {"helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 2}
    second = {"helpfulness": 1, "correctness": None}
    rows = [{"prompt": "p", "response": text, **own} for text, own in (("a", first), ("b", second))]
    [found], _ = read(tmp_path, "helpsteer", *rows)
    assert found.meta["attributes"] == [first, {"helpfulness": 1}]


def test_another_rating_of_helpsteer_and_its_earlier_turns(tmp_path: Path) -> None:
    prompt = "Hi\n<extra_id_1>Assistant\nHello!\n<extra_id_1>User\nWhat is shown?"
    rows = [
        {"prompt": prompt, "response": "a", "correctness": 1},
        {"prompt": prompt, "response": "b", "correctness": 3},
        {"prompt": prompt, "response": "c", "correctness": None},
        {"prompt": "alone", "response": "d", "correctness": 2},
    ]
    [found], rejected = read(tmp_path, "helpsteer", *rows, rating="correctness")
    assert [(message.role, message.text) for message in found.prompt] == [
        ("user", "Hi"),
        ("assistant", "Hello!"),
        ("user", "What is shown?"),
    ]
    assert found.ratings == (1, 3)
    assert rejected == [
        "3: correctness: is no number",
        "4: responses: fewer than two different responses have a rating",
    ]


def test_mmpr_reads_the_files_of_its_meta_file(tmp_path: Path) -> None:
    root = tmp_path / "MMPR-v1.2"
    for name in ("annotations", "images/a", "images/b"):
        (root / name).mkdir(parents=True)
    for part, colour in (("a", "red"), ("b", "blue")):
        (root / "images" / part / "1.png").write_bytes(published.image(colour))
    row = {"question": "<image>\n<image>\nWhich?", "chosen": "x", "rejected": "y"}
    write_rows(root / "annotations" / "a.jsonl", [{**row, "image": ["1.png", "1.png"]}], "jsonl")
    write_rows(
        root / "annotations" / "b.jsonl",
        [{**row, "question": "Which?", "image": "1.png"}, {**row, "question": "No image?"}],
        "jsonl",
    )
    meta = {
        part: {
            "root": f"MMPR-v1.2/images/{part}",
            "annotation": f"MMPR-v1.2/annotations/{part}.jsonl",
            "data_augment": False,
            "repeat_time": 1,
            "length": 1,
        }
        for part in ("b", "a")
    }
    (root / "meta.json").write_text(json.dumps(meta))
    for path in (root, root / "meta.json"):
        found = list(opened("mmpr", path))
        assert [(item.meta["part"], len(item.images)) for item in found] == [("b", 1), ("b", 0), ("a", 2)]
        assert found[0].images[0].open().getpixel((0, 0)) == (0, 0, 255)
        assert found[2].images[1].open().getpixel((0, 0)) == (255, 0, 0)
    for damaged in (
        "[]",
        "{",
        '{"a": {}}',
        '{"a": 5}',
        '{"a": {"root": "..", "annotation": "a"}}',
        '{"a": {"root": "a", "annotation": "/etc/passwd"}}',
    ):
        (root / "meta.json").write_text(damaged)
        with pytest.raises(DataError) as error:
            opened("mmpr", root)
        assert str(error.value) == (
            f'{root}/meta.json: must be an object of parts, each with "annotation" and "root" '
            "within the directory"
        )


def test_a_row_of_the_first_vlfeedback_names_a_member_of_its_archive(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "merged_images.zip", "w") as archive:
        archive.writestr("merged_images/svit-1.png", published.image())
    completions = [
        {"response": text, "annotations": published.vlfeedback(rating, rating, rating)}
        for text, rating in (("a", "5"), ("b", "3"))
    ]
    row = {"prompt": "p", "img_path": "svit-1.png", "completions": completions}
    [found], _ = read(tmp_path, "vlfeedback", row)
    assert found.images[0].open().getpixel((0, 0)) == (255, 0, 0)
    assert found.to_dict()["images"] == [f"{tmp_path}/merged_images.zip/merged_images/svit-1.png"]
