"""Curation: what each step keeps, changes and drops, and that the counts add up."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import pytest
from images import drawing, encoded

from basereward import Comparison, ConfigError, hookimpl
from basereward.config import Component
from basereward.data import read_comparisons
from basereward.data.curation import STEPS, Curation, resolved_step
from basereward.errors import DataError
from basereward.media import Image
from basereward.plugins import PluginManager


def curation(*steps: tuple[str, dict[str, Any]], plugins: PluginManager | None = None) -> Curation:
    return Curation.of([Component(name, options) for name, options in steps], plugins or PluginManager())


def fate(name: str, comparison: Comparison, **options: Any) -> Comparison | str:
    """Return what one step makes of one row: the row, or the reason for which it is dropped."""
    result = curation((name, options))(comparison)
    return str(result) if isinstance(result, DataError) else result


LONG = "the quick brown fox jumps over the lazy dog while nine small cats look on from behind the barn"


def test_empty_prompts_and_short_responses_are_dropped() -> None:
    assert fate("drop-empty", Comparison(" ", ["a", "b"])) == "prompt: dropped by drop-empty: empty prompt"
    illustrated = Comparison("", ["a", "b"], images=[drawing(0)])
    assert fate("drop-empty", illustrated) is illustrated
    assert fate("drop-empty", Comparison("p", ["long", " b "]), min_characters=2) == (
        "responses[1]: dropped by drop-empty: short response: 1 characters, 2 needed"
    )


def test_of_identical_responses_the_first_stays_with_its_rank_and_rating() -> None:
    row = Comparison("p", ["Yes.", "no", "yes. "], ratings=[3, 1, 3], id="r", meta={"k": 1})
    changed = fate("drop-identical", row)
    assert isinstance(changed, Comparison)
    assert (changed.responses, changed.ranks, changed.ratings) == (("Yes.", "no"), (0.0, 2.0), (3.0, 1.0))
    assert (changed.id, changed.meta) == ("r", {"k": 1})
    assert fate("drop-identical", Comparison("p", ["A", "a"], ranks=[0, 0])) == (
        "responses: dropped by drop-identical: all responses identical"
    )
    assert fate("drop-identical", Comparison("p", ["A", "a"], ranks=[0, 1])) == (
        "responses: dropped by drop-identical: identical but ranked differently: responses[0] "
        "and responses[1]"
    )


def test_what_is_too_long_is_dropped_with_its_length() -> None:
    row = Comparison("p" * 30, ["a" * 10, "b" * 25])
    assert fate("drop-too-long", row) is row
    assert fate("drop-too-long", row, max_prompt_characters=29) == (
        "prompt: dropped by drop-too-long: long prompt: 30 characters, at most 29"
    )
    assert fate("drop-too-long", row, max_response_characters=20) == (
        "responses[1]: dropped by drop-too-long: long response: 25 characters, at most 20"
    )
    illustrated = Comparison("p", ["a"], images=[drawing(0), drawing(1)])
    assert fate("drop-too-long", illustrated, max_images=1) == (
        "images: dropped by drop-too-long: too many images: 2 images, at most 1"
    )


@pytest.mark.parametrize("mark", ["<ImageHere>", "<image_1>", "<|image_1|>", "<IMG>", "[IMG]", "<Image>"])
def test_other_marks_for_images_are_read_as_ours(mark: str) -> None:
    image = Image(drawing(0))
    row = Comparison(f"What is in {mark}?", ["a dog", f"{mark}\na cat"], images=[image])
    changed = fate("placeholders", row)
    assert isinstance(changed, Comparison)
    assert changed.prompt[0].content == ("What is in ", image, "?")
    assert changed.responses == ("a dog", "a cat")
    text_only = fate("placeholders", Comparison(f"{mark}\nWhat?", ["a", "b"]))
    assert isinstance(text_only, Comparison)
    assert text_only.prompt[0].text == "What?"


def test_an_image_that_has_its_place_stays_there_and_a_response_never_becomes_empty() -> None:
    images = [Image(drawing(0)), Image(drawing(1))]
    row = Comparison("<image> or <image>? <ImageHere>", ["<image>", "b"], images=images)
    changed = fate("placeholders", row)
    assert isinstance(changed, Comparison)
    assert changed.prompt[0].content == (images[0], " or ", images[1], "? ")
    assert changed.responses == ("<image>", "b")
    plain = Comparison("p", ["a", "b"])
    assert fate("placeholders", plain) is plain


def test_a_much_longer_best_response_is_dropped_and_a_much_longer_worst_one_is_not() -> None:
    short, long = "x" * 100, "y" * 300
    assert fate("length-bias", Comparison("p", [long, short], ranks=[0, 1])) == (
        "responses: dropped by length-bias: best response much longer: 300 characters against 100"
    )
    for kept in (
        Comparison("p", [long, short], ranks=[1, 0]),
        Comparison("p", [long, short], ranks=[0, 0]),
        Comparison("p", [long, short]),
        Comparison("p", ["x" * 30, "y" * 10], ranks=[0, 1]),  # 20 characters more are not `min_characters`
    ):
        assert fate("length-bias", kept) is kept


def test_a_length_filter_both_ways_drops_much_shorter_best_responses_too() -> None:
    assert fate("length-bias", Comparison("p", ["x" * 300, "y" * 100], ranks=[1, 0]), both_ways=True) == (
        "responses: dropped by length-bias: best response much shorter: 100 characters against 300"
    )


def test_the_hardest_pair_is_that_of_the_largest_gap() -> None:
    row = Comparison("p", ["mid", "worst", "best", "also best"], ratings=[3, 1, 5, 5])
    kept = fate("hardest-pair", row)
    assert isinstance(kept, Comparison)
    assert (kept.responses, kept.ratings) == (("worst", "best"), (1.0, 5.0))
    assert kept.pairs()[0].margin == 4.0
    assert fate("hardest-pair", row, min_gap=5) == (
        "ratings: dropped by hardest-pair: small gap: 4 in rating, 5 needed"
    )
    assert fate("hardest-pair", Comparison("p", ["a", "b"], ranks=[0, 0])) == (
        "ranks: dropped by hardest-pair: no response better than another"
    )
    pair = Comparison("p", ["a", "b"], ranks=[0, 1])
    assert fate("hardest-pair", pair) is pair


def test_rows_that_are_rated_nearly_alike_are_dropped() -> None:
    row = Comparison("p", ["a", "b"], ratings=[3, 2.5])
    assert fate("min-gap", row, min_gap=1) == (
        "ratings: dropped by min-gap: small gap: 0.5 in rating, 1 needed"
    )
    assert fate("min-gap", row, min_gap=0.5) is row
    unrated = Comparison("p", ["a", "b"], ranks=[0, 1])
    assert fate("min-gap", unrated, min_gap=9) is unrated


def test_rows_that_other_judges_order_otherwise_are_dropped(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(
        '{"line": 1, "id": "r", "rewards": [2.0, 1.0, 0.0]}\n{"line": 2, "rewards": [0.0, 1.0]}\n'
    )
    second.write_text('{"line": 1, "id": "r", "rewards": [0, 1, 2]}\n{"line": 2, "error": "no"}\n')
    row = Comparison("p", ["a", "b", "c"], ranks=[0, 1, 2], id="r")
    both = {"scores": (str(first), str(second))}
    assert fate("agreement", row, **both) is row  # 3 of 6
    assert fate("agreement", row, **both, min_agreement=0.6) == (
        "ranks: dropped by agreement: judges disagree: 3 of 6 judgements as the row ranks"
    )
    data = tmp_path / "rows.jsonl"
    rows = [{"prompt": "p", "responses": ["a", "b"], "ranks": [0, 1]}] * 2
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    by_line = list(read_comparisons(data))[1]
    assert fate("agreement", by_line, scores=(str(first),)) == (
        "ranks: dropped by agreement: judges disagree: 0 of 1 judgements as the row ranks"
    )
    assert fate("agreement", by_line, scores=(str(second),)) == (
        "dropped by agreement: not judged: a score file has no rewards for the row's responses"
    )


def test_ids_that_are_numbers_are_not_taken_for_lines(tmp_path: Path) -> None:
    scores = tmp_path / "scores.jsonl"
    scores.write_text(
        '{"line": 1, "id": 2, "rewards": [1.0, 0.0]}\n{"line": 2, "id": 1, "rewards": [0.0, 1.0]}\n'
    )
    data = tmp_path / "rows.jsonl"
    rows = [{"id": number, "prompt": "p", "responses": ["a", "b"], "ranks": [0, 1]} for number in (2, 1)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = read_comparisons(data)
    assert fate("agreement", first, scores=(str(scores),)) is first
    assert fate("agreement", second, scores=(str(scores),)) == (
        "ranks: dropped by agreement: judges disagree: 0 of 1 judgements as the row ranks"
    )


def near(text: str) -> str:
    return text.replace("behind the barn", "behind a barn")


def test_rows_that_are_the_same_or_nearly_are_dropped_after_the_first() -> None:
    chain = curation(("near-duplicates", {"threshold": 0.7}))
    other = LONG[::-1]
    first = Comparison("Tell me!", [LONG, other], ranks=[0, 1], id="first")
    assert chain(first) is first
    same = Comparison("tell  me!", [other, LONG.upper()], ranks=[1, 0], id="same")
    assert str(chain(same)) == "dropped by near-duplicates: same row: as first"
    alike = Comparison("Tell me.", [near(LONG), other], ranks=[0, 1], id="alike")
    assert str(chain(alike)) == "dropped by near-duplicates: nearly the same row: as first"
    for kept in (
        Comparison("Tell me!", [LONG, other], ranks=[1, 0]),  # the opposite preference is another row
        Comparison("Tell him!", [LONG, other], ranks=[0, 1]),
        Comparison("Tell me!", [LONG, other], ranks=[0, 1], images=[drawing(0)]),
        Comparison("Tell me!", ["yes", "no"], ranks=[0, 1]),
    ):
        assert chain(kept) is kept
    assert chain.report()[0]["dropped"] == {"same row": 1, "nearly the same row": 1}
    chain.reset()
    assert chain(same) is same


def test_threshold_one_drops_only_what_is_the_same() -> None:
    chain = curation(("near-duplicates", {"threshold": 1.0}))
    assert isinstance(chain(Comparison("p", [LONG])), Comparison)
    assert isinstance(chain(Comparison("p", [near(LONG)])), Comparison)
    assert isinstance(chain(Comparison("p", [LONG])), DataError)


def test_by_prompt_one_row_of_each_prompt_and_image_stays() -> None:
    chain = curation(("near-duplicates", {"by": "prompt", "threshold": 0.7, "max_distance": 4}))
    image = drawing(3)
    small = Image(encoded(image, "JPEG", quality=60))
    first = Comparison(LONG, ["a", "b"], images=[image], id="first")
    assert chain(first) is first
    assert str(chain(Comparison(near(LONG), ["c", "d"], images=[small]))) == (
        "dropped by near-duplicates: nearly the same row: as first"
    )
    other = Comparison(LONG, ["a", "b"], images=[drawing(4)])
    assert chain(other) is other


def test_near_copies_are_found_among_many_rows_and_others_are_not() -> None:
    import random

    chance = random.Random(0)
    words = [f"word{number}" for number in range(500)]
    texts = [" ".join(chance.choices(words, k=60)) for _ in range(300)]
    chain = curation(("near-duplicates", {}))
    assert all(isinstance(chain(Comparison("p", [text])), Comparison) for text in texts)
    copies = [text + " end" for text in texts]
    dropped = sum(isinstance(chain(Comparison("p", [copy])), DataError) for copy in copies)
    assert dropped == len(copies)  # 58 of 59 runs in common: 0.98


def test_no_more_rows_of_an_image_than_asked_for_stay() -> None:
    chain = curation(("max-per-image", {"num_rows": 2}))
    image = encoded(drawing(0))
    rows = [Comparison(f"p{number}", ["a"], images=[image]) for number in range(3)]
    assert [isinstance(chain(row), Comparison) for row in rows] == [True, True, False]
    text = Comparison("p", ["a"])
    assert all(chain(text) is text for _ in range(5))


QUESTION = "How many people are standing in front of the house?"


class Benchmark:
    """Two items: an image with a question of many words, and a short question."""

    def __init__(self, path: str, *, extra: bool = False) -> None:
        self.path = path

    def comparisons(self) -> list[Comparison]:
        return [
            Comparison(QUESTION, ["two", "three"], images=[drawing(7)], id="v1"),
            Comparison("What is it?", ["two", "three"], images=[str(Path(self.path) / "gone.png")], id="v2"),
        ]

    def report(self, rewards: Any) -> dict[str, Any]:
        return {}


@pytest.fixture
def plugins() -> PluginManager:
    """Return plugins with one benchmark."""

    @hookimpl
    def basereward_benchmarks() -> dict[str, type]:
        return {"tiny-bench": Benchmark}

    module = types.ModuleType("tiny")
    module.basereward_benchmarks = basereward_benchmarks  # type: ignore[attr-defined]
    return PluginManager([module])


@pytest.mark.parametrize(
    ("drop", "expected"),
    [
        ("any", [1, 1, 1, 1, 0, 0]),
        ("image", [1, 1, 0, 1, 0, 0]),
        ("question", [1, 0, 1, 0, 0, 0]),
        ("both", [1, 0, 1, 0, 0, 0]),
    ],
)
def test_rows_that_share_an_image_or_question_with_a_benchmark_are_dropped(
    plugins: PluginManager, drop: str, expected: list[int]
) -> None:
    options = {"benchmarks": [{"name": "tiny-bench", "path": "x"}], "drop": drop}
    chain = curation(("contamination", options), plugins=plugins)
    rows = [
        Comparison(QUESTION.upper(), ["a"], images=[drawing(7)]),
        Comparison("other", ["a"], images=[encoded(drawing(7), "JPEG", quality=80)]),
        Comparison(QUESTION, ["a"]),
        Comparison("other", ["a"], images=[drawing(7)]),
        Comparison("What is it?", ["a"], images=[drawing(8)]),
        Comparison("What is it?", ["a"]),
    ]
    assert [int(isinstance(chain(row), DataError)) for row in rows] == expected


def test_a_match_names_what_is_shared_and_with_which_item(plugins: PluginManager, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"id": "7", "prompt": LONG, "responses": ["a", "b"]}) + "\n")
    options = {"benchmarks": [{"name": "tiny-bench", "path": "x"}], "data": [str(own)]}
    chain = curation(("contamination", options), plugins=plugins)
    assert str(chain(Comparison(QUESTION, ["a"], images=[drawing(7)]))) == (
        "dropped by contamination: same image and same question: as in tiny-bench v1"
    )
    assert str(chain(Comparison(LONG, ["a"]))) == (
        "dropped by contamination: same question: as in own.jsonl 7"
    )
    step: Any = chain.steps[0]
    assert (step.index.num_rows, step.index.num_unopened) == (3, 1)


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("dedup", {}, f"unknown curation step 'dedup'; steps: {', '.join(STEPS)}"),
    (
        "lenght-bias",
        {},
        "unknown curation step 'lenght-bias'; did you mean 'length-bias'? steps: " + ", ".join(STEPS),
    ),
    (
        "length-bias",
        {"ratio": 2},
        "curation step 'length-bias' has no option 'ratio'; did you mean 'max_ratio'? "
        "options: max_ratio, min_characters, both_ways",
    ),
    ("length-bias", {"max_ratio": 0.5}, "max_ratio is 0.5; it is at least 1"),
    ("min-gap", {}, "curation step 'min-gap' needs option 'min_gap'; options: min_gap"),
    ("near-duplicates", {"threshold": 2.0}, "threshold is 2; it is above 0, and at most 1"),
    ("max-per-image", {"num_rows": 0}, "num_rows is 0; it is at least 1"),
    ("agreement", {"scores": []}, "scores is empty; name at least one file that `basereward score` wrote"),
    ("contamination", {}, "names no benchmark; set benchmarks, or data for files of your own"),
]


@pytest.mark.parametrize(("name", "options", "message"), MISTAKES)
def test_a_wrong_step_says_what_to_write(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        curation((name, options))
    assert str(caught.value) == message


@pytest.mark.parametrize("name", STEPS)
def test_every_step_has_its_registered_name_and_resolves(name: str) -> None:
    needed = {"min-gap": {"min_gap": 1.0}, "agreement": {"scores": ["a.jsonl"]}}.get(name, {})
    resolved = resolved_step(Component(name, needed))
    assert resolved.name == name
    assert set(needed) <= set(resolved.options)


def test_the_report_counts_every_row_of_every_step() -> None:
    chain = curation(("drop-identical", {}), ("hardest-pair", {}), ("length-bias", {"max_ratio": 1.5}))
    long = "x" * 200
    rows = [
        Comparison("1", ["a", "A"], ranks=[0, 0], id="1"),
        Comparison("2", ["a", "b", "c"], ranks=[0, 1, 2], id="2"),
        Comparison("3", [long, "b"], ranks=[0, 1], id="3"),
        Comparison("4", ["a", "b"], ranks=[0, 1], id="4"),
    ]
    results = [chain(row) for row in rows]
    assert [isinstance(result, DataError) for result in results] == [True, False, True, False]
    numbers = [
        (step["step"], step["num_in"], step["num_changed"], step["dropped"], step["num_out"])
        for step in chain.report()
    ]
    assert numbers == [
        ("drop-identical", 4, 0, {"all responses identical": 1}, 3),
        ("hardest-pair", 3, 1, {}, 3),
        ("length-bias", 3, 0, {"best response much longer": 1}, 2),
    ]
    assert chain.report()[1]["examples"] == [
        {
            "id": "2",
            "file": None,
            "line": None,
            "prompt": "2",
            "responses": ["a", "b", "c"],
            "changed_to": {"prompt": "2", "responses": ["a", "c"]},
        }
    ]
    json.dumps(chain.report())
