"""The identity of a prompt: what grouping, caching, joining and deduplication compare."""

from __future__ import annotations

import itertools
import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from basereward import Comparison
from basereward.data.curation.near_duplicates import NearDuplicates
from basereward.errors import DataError
from basereward.media import Image, Video
from basereward.message import ROLES, Message, identity_of
from basereward.training.data_loader import digest_of

RED, BLUE = (Pillow.new("RGB", (2, 2), colour) for colour in ("red", "blue"))

PARTS = st.one_of(
    st.sampled_from(["a", "b", "a b", "image", "text"]),
    st.sampled_from([RED, BLUE]).map(Image),
    st.builds(Video, st.just([RED]), st.sampled_from([None, 2.0])),
)
PROMPTS = st.lists(
    st.builds(Message, st.sampled_from(ROLES), st.lists(PARTS, min_size=1, max_size=3)),
    min_size=1,
    max_size=3,
)


def spelled(prompt: list[Message]) -> object:
    """Return a prompt in plain values, a reference."""
    return [
        (
            message.role,
            [
                part
                if isinstance(part, str)
                else ("i", part.open().tobytes())
                if isinstance(part, Image)
                else ("v", [frame.open().tobytes() for frame in part.frames], part.fps)
                for part in message.content
            ],
        )
        for message in prompt
    ]


@given(PROMPTS, PROMPTS)
def test_identities_are_equal_for_equal_prompts_alone(first: list[Message], second: list[Message]) -> None:
    assert (identity_of(first) == identity_of(second)) == (spelled(first) == spelled(second))
    assert hash(identity_of(first)) == hash(identity_of(first))
    # Also as JSON has them, by which caches are keyed.
    same = json.dumps(identity_of(first)) == json.dumps(identity_of(second))
    assert same == (spelled(first) == spelled(second))


def test_all_that_a_message_has_counts() -> None:
    # One entry for each field, so that a field that is added has its place.
    assert len(identity_of([Message("user", ("a",))])[0]) == len(fields(Message))


VARIANTS = {
    "as it is": [Message("user", (Image(RED), "is it", Image(BLUE), "red"))],
    "other place": [Message("user", (Image(RED), "is", Image(BLUE), "it red"))],
    "other order": [Message("user", (Image(BLUE), "is it", Image(RED), "red"))],
    "other role": [Message("tool", (Image(RED), "is it", Image(BLUE), "red"))],
    "two messages": [Message("user", (Image(RED), "is it")), Message("user", (Image(BLUE), "red"))],
    "a system": [Message("system", ("no",)), Message("user", (Image(RED), "is it", Image(BLUE), "red"))],
    "no image": [Message("user", ("is it red",))],
    "a video": [Message("user", (Video([RED, BLUE]), "is it red"))],
    "a faster one": [Message("user", (Video([RED, BLUE], 2.0), "is it red"))],
}


@pytest.mark.parametrize("by", ["row", "prompt"])
@pytest.mark.parametrize("threshold", [0.9, 1.0])
def test_rows_of_other_prompts_are_no_duplicates(by: str, threshold: float) -> None:
    rows = [Comparison(prompt, ["a", "b"], ranks=[0, 1], id=name) for name, prompt in VARIANTS.items()]
    step = NearDuplicates(threshold=threshold, by=by)  # type: ignore[arg-type]
    kept = [row.id for row in rows if not isinstance(step(row), DataError)]
    assert kept == list(VARIANTS)
    assert all(isinstance(step(row), DataError) for row in rows)


def test_white_space_and_case_aside_rows_are_the_same() -> None:
    step = NearDuplicates(threshold=1.0)
    spaced = [Message("user", (Image(RED), " Is  IT ", Image(BLUE), "red"))]
    in_parts = [Message("user", (Image(RED), "is ", "it", " ", Image(BLUE), "red"))]
    [first, *others] = [
        step(Comparison(prompt, ["a", "b"], ranks=[0, 1]))
        for prompt in (VARIANTS["as it is"], spaced, in_parts)
    ]
    assert isinstance(first, Comparison)
    assert all(isinstance(other, DataError) for other in others)


def test_other_system_messages_make_other_rows() -> None:
    step = NearDuplicates(threshold=0.9)
    for language in ("French", "English"):
        prompt = [Message("system", (f"Answer in {language}.",)), Message("user", ("What is it?",))]
        assert isinstance(step(Comparison(prompt, ["a cat", "a dog"], ranks=[0, 1])), Comparison)


def test_the_digest_of_training_data_tells_prompts_apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    # The images are of one size, which is all that is read of them.
    prompts = [prompt for name, prompt in VARIANTS.items() if name != "other order"]
    rows = [Comparison(prompt, ["a", "b"], ranks=[0, 1]) for prompt in prompts]
    digests = [digest_of([row]) for row in rows]
    assert all(one != other for one, other in itertools.combinations(digests, 2))
    # Of files it takes the names, not the content: a run with a million images starts at once.
    place = tmp_path_factory.mktemp("images")
    named = [Comparison("p", ["a"], images=[place / name]) for name in ("a.png", "b.png")]
    moved = Comparison("p", ["a"], images=[tmp_path_factory.mktemp("moved") / "a.png"])
    assert digest_of(named[:1]) != digest_of(named[1:])
    assert digest_of(named[:1]) == digest_of([moved])
