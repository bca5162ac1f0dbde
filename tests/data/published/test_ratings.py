"""UltraFeedback, VLFeedback and HelpSteer: ratings become ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import published
from published import CHAT, SETS, only, read, write_set


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
        rated = zip(aspects, ratings, strict=True)
        return {"response": text, "annotations": {aspect: {"Rating": rating} for aspect, rating in rated}}

    row = {
        "instruction": "p",
        "completions": [completion("a", "5", "N/A", "4", "3"), completion("b", "1", "2", "1", "2")],
    }
    [comparison], _ = read(tmp_path, "ultrafeedback", row, score="fine-grained")
    assert comparison.ratings == (4.0, 1.5)  # (5 + 4 + 3) / 3 and (1 + 2 + 1 + 2) / 4


def test_equal_texts_are_one_response_with_the_mean_of_their_ratings(tmp_path: Path) -> None:
    completions = [
        {"response": text, "overall_score": score} for text, score in [("a", 2), ("b", 5), ("a", 4), ("", 9)]
    ]
    [comparison], _ = read(tmp_path, "ultrafeedback", {"instruction": "p", "completions": completions})
    assert (comparison.responses, comparison.ratings) == (("a", "b"), (3, 5))
    _, rejected = read(tmp_path, "ultrafeedback", {"instruction": "p", "completions": completions[::2]})
    assert rejected == ["1: responses: fewer than two different responses have a rating"]


def test_preferences_of_helpsteer_are_ratings(tmp_path: Path) -> None:
    second = {"prompt": "p", "response_1": "a", "response_2": "b", "preference_strength": 2}
    third = {"context": CHAT, "response1": "a", "response2": "b", "overall_preference": -3}
    comparisons, _ = read(tmp_path, "helpsteer", second, second, third)
    assert [(item.responses, item.ratings) for item in comparisons] == [
        (("a", "b"), (0, 2)),
        (("a", "b"), (0, 2)),
        (("a", "b"), (0, -3)),
    ]


def test_all_that_helpsteer_rates_is_kept_by_response(tmp_path: Path) -> None:
    first = {"helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 2}
    second = {"helpfulness": 1, "correctness": None}
    rows = [{"prompt": "p", "response": text, **ratings} for text, ratings in (("a", first), ("b", second))]
    [comparison], _ = read(tmp_path, "helpsteer", *rows)
    assert comparison.meta["attributes"] == [first, {"helpfulness": 1}]


def test_another_rating_of_helpsteer_and_its_earlier_turns(tmp_path: Path) -> None:
    prompt = "Hi\n<extra_id_1>Assistant\nHello!\n<extra_id_1>User\nWhat is shown?"
    rows = [
        {"prompt": prompt, "response": "a", "correctness": 1},
        {"prompt": prompt, "response": "b", "correctness": 3},
        {"prompt": prompt, "response": "c", "correctness": None},
        {"prompt": "alone", "response": "d", "correctness": 2},
    ]
    [comparison], rejected = read(tmp_path, "helpsteer", *rows, rating="correctness")
    assert [(message.role, message.text) for message in comparison.prompt] == [
        ("user", "Hi"),
        ("assistant", "Hello!"),
        ("user", "What is shown?"),
    ]
    assert comparison.ratings == (1, 3)
    assert rejected == [
        "3: correctness: is no number",
        "4: responses: fewer than two different responses have a rating",
    ]


def test_a_row_of_the_first_vlfeedback_names_a_member_of_its_archive(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "merged_images.zip", "w") as archive:
        archive.writestr("merged_images/svit-1.png", published.image())
    completions = [
        {"response": text, "annotations": published.vlfeedback(rating, rating, rating)}
        for text, rating in (("a", "5"), ("b", "3"))
    ]
    row = {"prompt": "p", "img_path": "svit-1.png", "completions": completions}
    [comparison], _ = read(tmp_path, "vlfeedback", row)
    assert comparison.images[0].open().getpixel((0, 0)) == (255, 0, 0)
    assert comparison.to_dict()["images"] == [f"{tmp_path}/merged_images.zip/merged_images/svit-1.png"]
