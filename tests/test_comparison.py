"""Comparisons: what they accept, what they refuse, and the pairs they make."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basereward.comparison import Comparison, Pair, Place
from basereward.errors import DataError
from basereward.media import Image, Video
from basereward.message import Message

PNG = b"not decoded here"


def test_a_text_prompt_becomes_one_user_message() -> None:
    comparison = Comparison("What is it?", ["a cat", "a dog"])
    assert comparison.prompt == (Message("user", ("What is it?",)),)
    assert comparison.responses == ("a cat", "a dog")


def test_images_without_placeholders_come_before_the_first_user_message() -> None:
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}]
    comparison = Comparison(prompt, ["a", "b"], images=[PNG])
    assert comparison.prompt[1].content == (Image(PNG), "What?")


def test_images_fill_placeholders_in_order() -> None:
    comparison = Comparison("Left <image> right <image>?", ["a", "b"], images=[b"1", b"2"])
    assert comparison.prompt[0].content == ("Left ", Image(b"1"), " right ", Image(b"2"), "?")
    assert comparison.images == (Image(b"1"), Image(b"2"))


def test_typed_parts_take_the_rows_images() -> None:
    prompt = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    assert Comparison(prompt, ["a", "b"], images=[PNG]).prompt[0].content == (Image(PNG), "What?")


def test_a_placeholder_in_a_response_is_text() -> None:
    assert Comparison("How do I write it?", ["use <image>", "b"]).images == ()


def test_pairs_of_a_ranking_with_a_tie() -> None:
    # Ranks 1, 0, 1: response 1 beats both others, which tie.
    pairs = Comparison("p", ["a", "b", "c"], ranks=[1, 0, 1]).pairs()
    assert pairs == [Pair(1, 0), Pair(0, 2, tie=True), Pair(1, 2)]


def test_ratings_give_ranks_and_margins() -> None:
    # Ratings 2, 5, 2: one response is better than the first, none than the second.
    comparison = Comparison("p", ["a", "b", "c"], ratings=[2, 5, 2])
    assert comparison.ranks == (1.0, 0.0, 1.0)
    assert [(pair.chosen, pair.rejected, pair.margin) for pair in comparison.pairs()] == [
        (1, 0, 3.0),
        (0, 2, 0.0),
        (1, 2, 3.0),
    ]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=7))
def test_every_two_responses_make_one_pair_with_the_smaller_rank_chosen(ranks: list[int]) -> None:
    comparison = Comparison("p", [f"response {number}" for number in range(len(ranks))], ranks=ranks)
    pairs = comparison.pairs()
    assert len(pairs) == len(ranks) * (len(ranks) - 1) // 2
    for pair in pairs:
        assert pair.tie == (ranks[pair.chosen] == ranks[pair.rejected])
        assert ranks[pair.chosen] <= ranks[pair.rejected]


def test_pairs_without_ranks_are_an_error() -> None:
    with pytest.raises(DataError, match="^ranks: the comparison has no ranks"):
        Comparison("p", ["a", "b"]).pairs()


BAD = {
    "empty response": (
        {"responses": ["a", "  "]},
        "responses[1]: is empty",
    ),
    "no responses": ({"responses": []}, "responses: the list is empty; at least one response is needed"),
    "a text for responses": ({"responses": "a"}, "responses: a list of texts is needed, not str"),
    "a number for a response": ({"responses": ["a", 3]}, "responses[1]: is a int, not a text"),
    "identical responses ranked apart": (
        {"responses": ["a", "b", "a"], "ranks": [0, 1, 2]},
        "responses[2]: is identical to responses[0], but ranked differently",
    ),
    "NaN rank": ({"ranks": [0, math.nan]}, "ranks[1]: a finite number is needed, not nan"),
    "infinite rating": ({"ratings": [0, math.inf]}, "ratings[1]: a finite number is needed, not inf"),
    "a rank too few": ({"ranks": [0]}, "ranks: 1 values for 2 responses"),
    "negative weight": ({"weight": -1}, "weight: a weight is a finite number >= 0, not -1"),
    "placeholder without image": (
        {"prompt": "What is <image>?"},
        "images: the prompt has 1 <image> placeholder and the row 0 images",
    ),
    "image without placeholder": (
        {"prompt": "What is <image>?", "images": [b"1", b"2"]},
        "images: the prompt has 1 <image> placeholder and the row 2 images",
    ),
    "unknown role": (
        {"prompt": [{"role": "robot", "content": "hi"}]},
        "prompt: unknown role 'robot'; roles: system, user, assistant, tool",
    ),
    "no user to show an image": (
        {"prompt": [{"role": "system", "content": "hi"}], "images": [b"1"]},
        "images: there is no user message to show the images in",
    ),
    "no messages": ({"prompt": []}, "prompt: the list of messages is empty"),
    "message without content": (
        {"prompt": [{"role": "user"}]},
        "prompt: a message has 'role' and 'content'; this one has ['role']",
    ),
    "content that is no text and no list": (
        {"prompt": [{"role": "user", "content": False}]},
        "prompt: a message's content is a text or a list of parts, not bool",
    ),
    "content that is one part and no list": (
        {"prompt": [{"role": "user", "content": {"type": "text", "text": "hi"}}]},
        "prompt: a message's content is a text or a list of parts, not dict",
    ),
    "an image of no known kind": (
        {"images": [3]},
        "images: an image is a path, bytes, a PIL image or a mapping with 'bytes' or 'path', not int",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_comparison_is_refused_with_its_field(case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(DataError) as error:
        Comparison(**{"prompt": "p", "responses": ["a", "b"], **changes})
    assert str(error.value) == message


def test_an_unknown_or_missing_field_of_a_row_is_named() -> None:
    with pytest.raises(
        DataError, match="^rank: unknown field; fields: id, prompt, tools, images, videos, responses"
    ):
        Comparison.from_dict({"prompt": "p", "responses": ["a"], "rank": [0]})
    with pytest.raises(DataError, match="^responses: is missing$"):
        Comparison.from_dict({"prompt": "p"})


def test_a_row_survives_its_dictionary() -> None:
    prompt = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "A <image> or <image>?"},
    ]
    comparison = Comparison(
        prompt,
        ["a", "b"],
        images=["one.png", "two.png"],
        ratings=[1.5, 2],
        weight=0.5,
        id="7",
        source="test",
        meta={"k": 1},
    )
    again = Comparison.from_dict(comparison.to_dict())
    assert again == comparison
    assert again.meta == {"k": 1}


def test_without_images_leaves_the_text() -> None:
    control = Comparison("A <image> here", ["a", "b"], images=[PNG], ranks=[0, 1]).without_images()
    assert control.images == ()
    assert control.prompt[0].text == "A  here"
    assert control.ranks == (0, 1)


def test_replace_keeps_what_is_not_changed() -> None:
    place = Place("rows.jsonl", 7)
    comparison = Comparison(
        "A <image> here",
        ["a", "b"],
        images=[PNG],
        ratings=[1, 2],
        weight=0.5,
        id="1",
        source="s",
        place=place,
    )
    assert comparison.replace() == comparison
    assert comparison.replace(meta={"k": 1}).meta == {"k": 1}
    changed = comparison.replace(responses=["c"], ranks=None, ratings=None)
    assert (changed.prompt, changed.images) == (comparison.prompt, comparison.images)
    assert (changed.responses, changed.ranks, changed.weight) == (("c",), None, 0.5)
    assert (changed.id, changed.source, changed.place) == ("1", "s", place)


def test_replace_refuses_what_contradicts_the_rest_or_lies_in_the_prompt() -> None:
    comparison = Comparison("What?", ["a", "b"], ranks=[0, 1])
    with pytest.raises(DataError, match="ranks"):
        comparison.replace(responses=["a", "b", "c"])
    with pytest.raises(TypeError, match=r"no argument 'images'; arguments: prompt, responses"):
        comparison.replace(images=[PNG])


def test_an_error_takes_its_place_from_whoever_knows_it() -> None:
    error = DataError("is empty", field="responses[1]").at(file="rows.jsonl", line=7)
    assert str(error) == "rows.jsonl:7: responses[1]: is empty"
    assert str(error.at(line=9)) == str(error)


FRAMES = [b"1", b"2"]


def test_videos_fill_their_placeholders_and_images_theirs() -> None:
    comparison = Comparison("<video> or <image>?", ["a", "b"], images=[PNG], videos=[FRAMES])
    assert comparison.prompt[0].content == (Video(FRAMES), " or ", Image(PNG), "?")
    assert (comparison.images, comparison.videos) == ((Image(PNG),), (Video(FRAMES),))


def test_videos_without_placeholders_come_after_such_images_and_before_the_text() -> None:
    comparison = Comparison("What?", ["a", "b"], images=[PNG], videos=[FRAMES])
    assert comparison.prompt[0].content == (Image(PNG), Video(FRAMES), "What?")
    assert comparison.without_images().prompt[0].content == ("What?",)


def test_a_typed_part_holds_a_video_or_takes_the_rows() -> None:
    for part, videos in (({"type": "video", "video": FRAMES, "fps": 2}, []), ({"type": "video"}, [FRAMES])):
        prompt = [{"role": "user", "content": [part, {"type": "text", "text": "?"}]}]
        [video] = Comparison(prompt, ["a", "b"], videos=videos).videos
        assert video.frames == (Image(b"1"), Image(b"2"))


def test_a_placeholder_without_its_video_is_refused() -> None:
    with pytest.raises(DataError) as error:
        Comparison("<video> or <image>?", ["a", "b"], images=[PNG])
    assert str(error.value) == "videos: the prompt has 1 <video> placeholder and the row 0 videos"


def test_a_row_with_videos_survives_its_dictionary() -> None:
    videos = ["clips/a", ["1.png", "2.png"], {"video": "b.mp4", "fps": 2.0}]
    comparison = Comparison("<video><image><video> <video>", ["a", "b"], images=["c.png"], videos=videos)
    row = comparison.to_dict()
    assert row["videos"] == videos
    assert Comparison.from_dict(row) == comparison
    with pytest.raises(DataError, match="^videos: a video in memory has no path to write; save it first$"):
        Comparison("p", ["a"], videos=[b"film"]).to_dict()
    with pytest.raises(DataError, match="^videos: a list of videos is needed, not str$"):
        Comparison.from_dict({"prompt": "p", "responses": ["a"], "videos": "film.mp4"})
