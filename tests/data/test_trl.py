"""TRL's preference formats: explicit and implicit prompts, texts and conversations, images, margins."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from basereward import Comparison, DataError, Message
from basereward.data import TRLDataset
from basereward.data.trl import split, split_texts, trl_row

ELSEWHERE = "; images that lie elsewhere: option media_dir"


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def assistant(content: object) -> dict[str, object]:
    return {"role": "assistant", "content": content}


def comparison(tmp_path: Path, row: dict[str, Any]) -> Comparison:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(row) + "\n")
    dataset = TRLDataset(file)
    dataset.on_bad_row = "fail"
    [comparison] = dataset
    return comparison


def reason(tmp_path: Path, row: dict[str, Any]) -> str:
    with pytest.raises(DataError) as error:
        comparison(tmp_path, row)
    return str(error.value).removeprefix(f"{tmp_path}/a.jsonl:1: ")


ASKED = (Message("user", ("What is the sky?",)),)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "What is the sky?", "chosen": "blue", "rejected": "green"},
        {
            "prompt": [user("What is the sky?")],
            "chosen": [assistant("blue")],
            "rejected": [assistant("green")],
        },
        {"prompt": [user("What is the sky?")], "chosen": "blue", "rejected": "green"},
        {
            "chosen": [user("What is the sky?"), assistant("blue")],
            "rejected": [user("What is the sky?"), assistant("green")],
        },
        {  # as in the Tulu 3 and UltraFeedback sets: the prompt apart, and again in both conversations
            "prompt": "What is the sky?",
            "chosen": [user("What is the sky?"), assistant("blue")],
            "rejected": [user("What is the sky?"), assistant("green")],
        },
        {
            "prompt": [user([{"type": "text", "text": "What is the sky?"}])],
            "chosen": [assistant([{"type": "text", "text": "blue"}])],
            "rejected": [assistant([{"type": "text", "text": "green"}])],
        },
    ],
    ids=["texts", "conversations", "mixed", "implicit", "repeated", "parts"],
)
def test_every_shape_of_a_row_gives_the_same_comparison(tmp_path: Path, row: dict[str, Any]) -> None:
    row_read = comparison(tmp_path, row)
    assert (row_read.prompt, row_read.responses, row_read.ranks) == (ASKED, ("blue", "green"), (0.0, 1.0))


def test_an_implicit_prompt_is_all_turns_that_both_conversations_begin_with(tmp_path: Path) -> None:
    start = [{"role": "system", "content": "Be brief."}, user("Hi"), assistant("Hello"), user("Sky?")]
    row_read = comparison(
        tmp_path, {"chosen": [*start, assistant("blue")], "rejected": [*start, assistant("green")]}
    )
    assert [(message.role, message.text) for message in row_read.prompt] == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Sky?"),
    ]
    assert row_read.responses == ("blue", "green")


def test_a_system_message_before_the_repeated_prompt_is_kept(tmp_path: Path) -> None:
    start = [{"role": "system", "content": "Be brief."}, user("Sky?")]
    row = {"prompt": "Sky?", "chosen": [*start, assistant("blue")], "rejected": [*start, assistant("green")]}
    assert [message.role for message in comparison(tmp_path, row).prompt] == ["system", "user"]


@pytest.mark.parametrize(
    ("chosen", "rejected", "parts"),
    [
        ("The sky is blue.", "The sky is green.", ("The sky is", " blue.", " green.")),
        # Both responses begin with "bl"; a word is never cut.
        ("The sky is blue.", "The sky is black.", ("The sky is", " blue.", " black.")),
        # One text is the beginning of the other: each response keeps a word.
        ("The sky is blue", "The sky is", ("The sky", " is blue", " is")),
        ("Q: sky?\n\nA: blue", "Q: sky?\n\nA: a b", ("Q: sky?\n\nA:", " blue", " a b")),
        ("Sky?  blue", "Sky?  green", ("Sky?", "  blue", "  green")),
        ("Sky?\tblue", "Sky? green", ("Sky?", "\tblue", " green")),
    ],
)
def test_an_implicit_prompt_of_texts_ends_with_a_whole_word(
    chosen: str, rejected: str, parts: tuple[str, str, str]
) -> None:
    assert split_texts(chosen, rejected) == parts


@given(
    st.text(alphabet="ab \n", max_size=12),
    st.text(alphabet="abc \n", max_size=9),
    st.text(alphabet="abc \n", max_size=9),
)
@example("", "a a", " a a")
def test_prompt_and_responses_joined_are_the_texts_again(start: str, left: str, right: str) -> None:
    chosen, rejected = start + left, start + right
    assume(chosen != rejected)
    try:
        prompt, first, second = split_texts(chosen, rejected)
    except DataError:
        # Only where no word stands at the head of both with another word after it in each.
        words = chosen.split(), rejected.split()
        begins_with_space = chosen[:1].isspace() or rejected[:1].isspace()
        assert min(map(len, words)) < 2 or words[0][0] != words[1][0] or begins_with_space
        return
    assert (prompt + first, prompt + second) == (chosen, rejected)
    assert first[0].isspace()
    assert second[0].isspace()
    assert first.strip()
    assert second.strip()
    assert prompt.strip()
    assert not prompt[-1].isspace()


def test_images_fill_the_image_parts_in_their_order(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Pillow.new("RGB", (4, 4)).save(tmp_path / name)
    parts = [{"type": "image"}, {"type": "text", "text": " or "}, {"type": "image", "text": None}]
    row = {"prompt": [user(parts)], "images": ["a.png", "b.png"], "chosen": "first", "rejected": "second"}
    content = comparison(tmp_path, row).prompt[0].content
    assert [part if isinstance(part, str) else Path(part.name).name for part in content] == [
        "a.png",
        " or ",
        "b.png",
    ]


@pytest.mark.parametrize("column", ["image", "images"])
@pytest.mark.parametrize("as_struct", [False, True])
def test_one_image_may_stand_in_either_column(tmp_path: Path, column: str, as_struct: bool) -> None:
    Pillow.new("RGB", (4, 4)).save(tmp_path / "a.png")
    image: object = {"bytes": None, "path": "a.png"} if as_struct else "a.png"
    row = {
        "prompt": "What?",
        "chosen": "a",
        "rejected": "b",
        column: [image] if column == "images" else image,
    }
    row_read = comparison(tmp_path, row)
    assert row_read.images[0].source == tmp_path / "a.png"
    assert row_read.prompt[0].content == (row_read.images[0], "What?")


def test_rows_of_a_hugging_face_table_hold_their_images(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    Pillow.new("RGB", (4, 4), "blue").save(tmp_path / "a.png")
    image = {"bytes": (tmp_path / "a.png").read_bytes(), "path": "gone.png"}
    rows = [
        {
            "prompt": [user([{"type": "image", "text": None}, {"type": "text", "text": "What?"}])],
            "chosen": [assistant([{"type": "text", "text": "blue"}])],
            "rejected": [assistant([{"type": "text", "text": "red"}])],
            "images": [image],
        }
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    [row_read] = TRLDataset(tmp_path / "a.parquet")
    assert row_read.images[0].open().getpixel((0, 0)) == (0, 0, 255)
    assert row_read.responses == ("blue", "red")


def test_a_margin_becomes_ratings_and_a_margin_of_zero_is_no_tie(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    [pair] = comparison(tmp_path, row | {"margin": 1.5}).pairs()
    assert (pair.chosen, pair.rejected, pair.margin, pair.tie) == (0, 1, 1.5, False)
    [pair] = comparison(tmp_path, row | {"margin": 0}).pairs()
    assert (pair.margin, pair.tie) == (0.0, False)
    [pair] = comparison(tmp_path, row).pairs()
    assert pair.margin is None


def test_columns_that_say_nothing_of_the_answer_are_kept_as_meta_where_they_are_plain(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "id": 5, "source": "s", "model": "m", "tags": [1]}
    row_read = comparison(tmp_path, row)
    assert (row_read.id, row_read.source, row_read.meta) == ("5", "s", {"model": "m"})


PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "rejected": "b"}, "chosen: is missing"),
        ({"prompt": "p", "chosen": "a", "rejected": None}, "rejected: is missing"),
        (
            {"prompt": "p", "chosen": "a", "rejected": "a"},
            "responses[1]: is identical to responses[0], but ranked differently",
        ),
        ({"chosen": "same text", "rejected": "same text"}, "rejected: is identical to chosen"),
        (
            {"chosen": "blue", "rejected": "green"},
            "prompt: is missing, and chosen and rejected don't begin with the same word",
        ),
        (
            {"chosen": [user("a"), assistant("x")], "rejected": [user("b"), assistant("y")]},
            "prompt: is missing, and chosen and rejected begin with different messages",
        ),
        (
            {"prompt": "c", "chosen": [user("a"), assistant("x")], "rejected": [user("a"), assistant("y")]},
            "prompt: is not the one that chosen and rejected begin with",
        ),
        (
            {"chosen": [user("a"), assistant("x"), user("b")], "rejected": [user("a"), assistant("y")]},
            "chosen: the response must be one assistant message, not assistant, user",
        ),
        (
            {**PAIR, "chosen": [assistant("x")]},
            "rejected: chosen and rejected must both be texts or both be lists of messages",
        ),
        ({**PAIR, "chosen": [], "rejected": []}, "chosen: the list of messages is empty"),
        (
            {**PAIR, "chosen": ["x"], "rejected": ["y"]},
            "chosen: a message is an object with 'role' and 'content', not 'x'",
        ),
        (
            {**PAIR, "chosen": [assistant([{"type": "image"}])], "rejected": [assistant("y")]},
            "chosen: a response may hold text only",
        ),
        ({**PAIR, "margin": -1}, "margin: a finite number >= 0 is needed, not -1"),
        ({**PAIR, "margin": "1"}, "margin: a finite number >= 0 is needed, not '1'"),
        ({**PAIR, "video": "a.mp4"}, "videos[0]: there is no file {directory}/a.mp4{elsewhere}"),
        ({**PAIR, "tools": ["x"]}, "tools: a list of objects is needed, or its JSON text"),
        (
            {**PAIR, "messages": [user("a"), assistant("x")]},
            "messages: is not chosen, nor is it known to say nothing of the answer",
        ),
        ({**PAIR, "image": "none.png"}, "images[0]: there is no file {directory}/none.png{elsewhere}"),
        ({**PAIR, "image": "a.png", "images": ["b.png"]}, "image: give either image or images"),
        (
            {**PAIR, "prompt": [user([{"type": "image"}])]},
            "images: the prompt has 1 <image> placeholder and the row 0 images",
        ),
    ],
)
def test_a_bad_row_says_what_is_wrong(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    assert reason(tmp_path, row) == message.format(directory=tmp_path, elsewhere=ELSEWHERE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "x"]) | JSON, "content": JSON}),
    max_size=3,
)
FIELDS = st.sampled_from(
    ["prompt", "chosen", "rejected", "images", "image", "margin", "id", "weight", "video"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(FIELDS, JSON | TURNS, max_size=9), st.booleans())
def test_no_row_raises_anything_but_a_data_error(
    tmp_path: Path, row: dict[str, object], is_filled: bool
) -> None:
    row = {**PAIR, **row} if is_filled else row
    with contextlib.suppress(DataError):
        Comparison.from_dict(trl_row(row))


def test_split_leaves_an_explicit_prompt_alone() -> None:
    assert split("The sky", "The sky is", "The sky isn't") == ("The sky", "The sky is", "The sky isn't")


@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected"])
def test_a_conversation_as_json_text_is_not_read_as_words(tmp_path: Path, field: str) -> None:
    row = {"prompt": [user("q")], "chosen": [assistant("x")], "rejected": [assistant("y")]}
    said = f"{field}: is a conversation as JSON text; store it as a list of messages"
    assert said in reason(tmp_path, row | {field: json.dumps(row[field])})
    texts = {"prompt": "q", "chosen": "x", "rejected": "y"}
    assert said in reason(tmp_path, texts | {field: " " + json.dumps(row[field], indent=1)})


def test_whole_conversations_as_json_texts_are_not_split_within(tmp_path: Path) -> None:
    row = {name: json.dumps([user("q"), assistant(name)]) for name in ("chosen", "rejected")}
    assert "chosen: is a conversation as JSON text" in reason(tmp_path, row)


@pytest.mark.parametrize(
    "text", ["[1, 2]", '[{"role": "user"', "[sic] a role", '[{"key": "\\"role\\""}]', '{"role": "x"}']
)
def test_a_text_that_only_begins_like_a_conversation_stays_one(tmp_path: Path, text: str) -> None:
    [message] = comparison(tmp_path, {"prompt": text, "chosen": "x", "rejected": "y"}).prompt
    assert message.text == text
