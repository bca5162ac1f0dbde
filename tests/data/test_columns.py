"""A column is read, known to say nothing of the answer, or refused by name; layouts are told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basereward import Comparison, DataError
from basereward.config import Component
from basereward.data import FileDataset, read_comparisons
from basereward.data.columns import ANSWERED_COLUMNS, IGNORED, MEASURES
from basereward.data.formats import DetectedDataset, detected
from basereward.errors import ColumnWarning
from basereward.plugins import PluginManager


def write(directory: Path, *rows: Any) -> Path:
    (directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory / "rows.jsonl"


def read(directory: Path, row: dict[str, Any], **options: Any) -> Comparison:
    """Return a row as each way to read a file reads it: by the file's format, and by the row's own."""
    file = write(directory, row)
    read_by: list[Any] = [read_comparisons(file, **options), DetectedDataset(file)]
    for rows in read_by:
        rows.on_bad_row = "fail"
    [first], [second] = read_by
    assert first == second
    return first


def reason(directory: Path, row: dict[str, Any]) -> str:
    with pytest.raises(DataError) as error:
        read(directory, row)
    return str(error.value).removeprefix(f"{directory}/rows.jsonl:1: ")


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}
WEATHER = {"name": "weather", "parameters": {}}
PAIR = {"chosen": "a", "rejected": "b"}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}

LAYOUTS: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]]]] = {
    # The format, a row, and the prompt that it means; the responses are "a" and "b".
    "alpaca": ("alpaca", {"instruction": "Q", "input": "", **PAIR}, [user("Q")]),
    "alpaca, no input": ("alpaca", {"instruction": "Q", **PAIR}, [user("Q")]),
    "alpaca, input": ("alpaca", {"instruction": "Q", "input": "on X", **PAIR}, [user("Q\non X")]),
    "alpaca, history": (
        "alpaca",
        {"instruction": "Q", "history": [["P", "O"]], "system": "Be brief.", **PAIR},
        [SYSTEM, user("P"), assistant("O"), user("Q")],
    ),
    "orca": ("orca", {"system": "Be brief.", "question": "Q", **PAIR}, [SYSTEM, user("Q")]),
    "orca, empty system": ("orca", {"system": "", "question": "Q", **PAIR}, [user("Q")]),
    "axolotl, bradley_terry": ("axolotl", {"system": "Be brief.", "input": "Q", **PAIR}, [SYSTEM, user("Q")]),
    "axolotl, argilla": (
        "axolotl",
        {"instruction": "Q", "chosen_response": "a", "rejected_response": "b"},
        [user("Q")],
    ),
    "axolotl, prompt_pairs": ("axolotl", {"system": "Be brief.", "prompt": "Q", **PAIR}, [SYSTEM, user("Q")]),
    "axolotl, chat_template": (
        "sharegpt",
        {"messages": [SYSTEM, user("Q")], "chosen": assistant("a"), "rejected": assistant("b")},
        [SYSTEM, user("Q")],
    ),
    "messages and texts": ("sharegpt", {"messages": [user("Q")], **PAIR}, [user("Q")]),
    "messages and lists of a turn": (
        "sharegpt",
        {"messages": [user("Q")], "chosen": [assistant("a")], "rejected": [assistant("b")]},
        [user("Q")],
    ),
    "LLaMA-Factory, sharegpt": (
        "sharegpt",
        {
            "conversations": [{"from": "human", "value": "Q"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
            "system": "Be brief.",
        },
        [SYSTEM, user("Q")],
    ),
    "LLaMA-Factory, tools": (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "Q"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
                {"from": "observation", "value": "12"},
            ],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
            "tools": json.dumps([WEATHER]),
        },
        [
            user("Q"),
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "12"},
        ],
    ),
    "ms-swift": (
        "sharegpt",
        {"messages": [user("Q"), assistant("a")], "rejected_response": "b"},
        [user("Q")],
    ),
    "ms-swift, rejected_messages": (
        "sharegpt",
        {"messages": [user("Q"), assistant("a")], "rejected_messages": [user("Q"), assistant("b")]},
        [user("Q")],
    ),
    "ms-swift, query": (
        "ms-swift",
        {"query": "Q", "response": "a", "rejected_response": "b", "history": [["P", "O"]]},
        [user("P"), assistant("O"), user("Q")],
    ),
    "ms-swift, question": (
        "ms-swift",
        {"question": "Q", "response": "a", "rejected_response": "b"},
        [user("Q")],
    ),
    "ms-swift, alpaca": (
        "ms-swift",
        {"instruction": "Q", "input": "on X", "output": "a", "rejected_response": "b"},
        [user("Q\non X")],
    ),
    "trl": ("trl", {"prompt": "Q", **PAIR}, [user("Q")]),
    "trl, conversations": (
        "trl",
        {"chosen": [user("Q"), assistant("a")], "rejected": [user("Q"), assistant("b")]},
        [user("Q")],
    ),
    "trl, messages of chosen": (
        "trl",
        {
            "prompt": "Q",
            "messages": [user("Q"), assistant("a")],
            "chosen": [user("Q"), assistant("a")],
            "rejected": [user("Q"), assistant("b")],
        },
        [user("Q")],
    ),
    "own": ("basereward", {"prompt": "Q", "responses": ["a", "b"], "ranks": [0, 1]}, [user("Q")]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layouts_of_other_trainers_are_told_apart_and_read_whole(name: str, tmp_path: Path) -> None:
    format, row, prompt = LAYOUTS[name]
    tools = [{"type": "function", "function": WEATHER}] if "tools" in row else None
    assert detected(write(tmp_path, row)) == format
    comparison = read(tmp_path, row)
    assert comparison.prompt == Comparison(prompt, ["a"], tools=tools).prompt
    assert (comparison.responses, comparison.ranks) == (("a", "b"), (0.0, 1.0))


PAIRS = [name for name, (format, *_) in LAYOUTS.items() if format != "basereward"]


@pytest.mark.parametrize("name", PAIRS)
def test_margin_weight_tools_and_names_reach_the_comparison_from_every_layout(
    name: str, tmp_path: Path
) -> None:
    _, row, _ = LAYOUTS[name]
    others = {"margin": 3.0, "weight": 0.5, "tools": [WEATHER], "id": 7, "source": "s", "category": "c"}
    comparison = read(tmp_path, row | others)
    assert [pair.margin for pair in comparison.pairs()] == [3.0]
    assert (comparison.weight, comparison.id, comparison.source) == (0.5, "7", "s")
    assert comparison.prompt[0].template_fields["tools"] == [{"type": "function", "function": WEATHER}]
    assert comparison.meta == {"category": "c"}


REFUSED = {
    "image_path": "cat.png",
    "image_url": "cat.png",
    "img": "cat.png",
    "pixel_values": [[0.1]],
    "audio": "a.wav",
    "audios": ["a.wav"],
    "documents": ["d"],
    "objects": {"bbox": [[0, 0, 1, 1]]},
    "chat_template_kwargs": {"enable_thinking": False},
    "context": "before",
    "label": 1,
    "unheard_of": 0,
}


@pytest.mark.parametrize("column", REFUSED)
@pytest.mark.parametrize("name", LAYOUTS)
def test_any_other_column_with_a_value_is_refused_by_name(name: str, column: str, tmp_path: Path) -> None:
    _, row, _ = LAYOUTS[name]
    assert reason(tmp_path, row | {column: REFUSED[column]}).startswith(f"{column}: ")


@pytest.mark.parametrize("name", PAIRS)
def test_a_column_without_a_value_or_one_that_the_user_names_is_left_out(name: str, tmp_path: Path) -> None:
    _, row, _ = LAYOUTS[name]
    empty: list[Any] = [None, "", [], {}]
    assert read(tmp_path, row | dict(zip(REFUSED, empty, strict=False))) == read(tmp_path, row)
    file = write(tmp_path, row | {"label": 1})
    [comparison] = DetectedDataset(file, ignored_columns=("label",))
    assert comparison == read(tmp_path, row)


@pytest.mark.parametrize("columns", ["image images", "video videos"])
@pytest.mark.parametrize("name", PAIRS)
def test_images_under_two_names_are_refused(name: str, columns: str, tmp_path: Path) -> None:
    _, row, _ = LAYOUTS[name]
    assert "give either" in reason(tmp_path, row | {column: ["cat.png"] for column in columns.split()})


@pytest.mark.parametrize(
    ("column", "value", "field"),
    [
        ("metadata", {"image": "cat.png"}, "metadata.image"),
        ("metadata", '{"image": "cat.png"}', "metadata.image"),
        ("origin", {"row": {"system_prompt": "Be brief."}}, "origin.row.system_prompt"),
    ],
)
@pytest.mark.parametrize("name", PAIRS)
def test_a_part_of_the_question_within_a_column_that_is_left_out_is_refused(
    name: str, column: str, value: Any, field: str, tmp_path: Path
) -> None:
    _, row, _ = LAYOUTS[name]
    told = reason(tmp_path, row | {column: value})
    assert told.startswith(f"{field}: ")
    assert told.endswith(f"or name {column!r} by the option ignored_columns")
    [comparison] = DetectedDataset(write(tmp_path, row | {column: value}), ignored_columns=(column,))
    assert comparison == read(tmp_path, row)


@pytest.mark.parametrize(
    "value", [{"image_id": 7, "image": None}, {"note": "no image"}, "an image", "{image"]
)
def test_what_only_says_something_of_an_image_is_left_out(value: Any, tmp_path: Path) -> None:
    pair = {"prompt": "Q", "chosen": "a", "rejected": "b"}
    assert read(tmp_path, pair | {"metadata": value}) == read(tmp_path, pair)


class Undeclared(FileDataset):
    """Reads two columns, and doesn't say which."""

    def convert_row(self, row: dict[str, Any], directory: Path) -> dict[str, Any]:
        """Return the row in our own format."""
        return {"prompt": row["question"], "responses": row.get("answers")}


class Whole(FileDataset):
    """Hands all columns on."""

    def convert_row(self, row: dict[str, Any], directory: Path) -> dict[str, Any]:
        """Return the row as it is."""
        return {**row}


def test_a_class_without_columns_reads_those_that_it_asks_for(tmp_path: Path) -> None:
    row = {"question": "Q", "answers": ["a", "b"], "id": 1}
    [item] = Undeclared(write(tmp_path, row | {"system": "Be brief."})).read()
    assert str(item).endswith(
        "system: is a column that is neither read (answers, question) nor known to say nothing of the "
        "answer; take it out, or name it by the option ignored_columns"
    )
    [item] = Undeclared(write(tmp_path, row)).read()
    assert isinstance(item, Comparison)
    assert item.responses == ("a", "b")
    [item] = Whole(write(tmp_path, {"prompt": "Q", "responses": ["a", "b"], "unheard_of": 1})).read()
    assert "unheard_of" in str(item)


def test_a_key_beside_the_url_of_an_image_is_refused(tmp_path: Path) -> None:
    address = {"url": "cat.png", "detail": "low", "crop": [0, 0, 9, 9]}
    content = [{"type": "image_url", "image_url": address}, {"type": "text", "text": "Q"}]
    row = {"prompt": [{"role": "user", "content": content}], "chosen": "a", "rejected": "b"}
    assert "the key 'crop' of 'image_url' is not read; take it out" in reason(tmp_path, row)


NAMES = sorted((IGNORED | ANSWERED_COLUMNS | REFUSED.keys()) - {"responses"})
VALUES = (
    st.none()
    | st.just("")
    | st.text("ab", min_size=1, max_size=3)
    | st.integers(2, 3)
    | st.lists(st.just("x"))
)


@given(
    name=st.sampled_from(PAIRS),
    others=st.dictionaries(st.sampled_from(NAMES) | st.text("abc", min_size=1), VALUES, max_size=4),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_column_that_may_matter_is_left_out(name: str, others: dict[str, Any], tmp_path: Path) -> None:
    format, row, _ = LAYOUTS[name]
    dataset: FileDataset = PluginManager().build(
        "dataset", Component(format, {"path": str(write(tmp_path, row))})
    )
    plain = dataset.comparison(row, tmp_path / "rows.jsonl", 1)
    assert isinstance(plain, Comparison)
    comparison = dataset.comparison({**others, **row}, tmp_path / "rows.jsonl", 1)
    filled = {key for key, value in others.items() if value not in (None, "", [])} - row.keys()
    if isinstance(comparison, DataError):
        assert filled
    else:
        # What is left out is known to say nothing; all else has left its trace.
        read_columns = filled - IGNORED
        assert read_columns <= dataset.columns.keys()
        if read_columns & (dataset.columns.keys() - {"messages"}):
            assert comparison != plain


def test_a_published_set_leaves_out_what_no_format_reads_with_one_warning(tmp_path: Path) -> None:
    row = {"history": "h", "human_ref_A": "a", "human_ref_B": "b", "labels": 1, "is_new": True}
    dataset = read_comparisons(write(tmp_path, row, row))
    with pytest.warns(ColumnWarning, match=r"^shp: the column 'is_new' is not read$") as warned:
        assert len(list(dataset)) == 2
    assert len(warned) == 1
    assert reason(tmp_path, row | {"system": "Be brief."}).startswith(
        "system: is a column that is neither read ("
    )


def test_what_is_bad_about_a_conversation_of_a_layout_is_said(tmp_path: Path) -> None:
    said = {"messages": [user("Q"), assistant("a")], "rejected_response": "b"}
    for row, message in (
        (said | {"chosen": "a"}, "chosen: the better answer is in messages where there is rejected_response"),
        (
            {**said, "messages": [SYSTEM, *said["messages"]], "system": "x"},
            "system: the conversation begins with",
        ),
        (
            {"messages": said["messages"], **PAIR},
            "messages: the turn before the answer is the assistant's, too",
        ),
        (said | {"conversations": [user("Q")]}, "messages: give either conversations or messages"),
        (
            {**said, "rejected_response": {**assistant("b"), "tool_calls": [CALL]}},
            "rejected_response: a response",
        ),
        (
            {
                "prompt": "Q",
                "chosen": [{**assistant("a"), "tool_calls": [CALL]}],
                "rejected": [assistant("b")],
            },
            "chosen: a",
        ),
        ({"instruction": "Q", "history": ["P"], **PAIR}, "history: a list of [question, answer] is needed"),
        ({"question": "Q", "tools": "weather", **PAIR}, "tools: is not the JSON text that it should be"),
        (
            {"conversations": [{"from": "human", "value": "Q", "weight": 0}], **PAIR},
            "conversations: the key 'weight' of a turn is neither read nor known",
        ),
        (
            {
                "conversations": [{"from": "human", "value": "Q"}, {"from": "function_call", "value": "{}"}],
                **PAIR,
            },
            "conversations: a call is the JSON of an object with 'name' and 'arguments'",
        ),
    ):
        assert reason(tmp_path, row).startswith(message)


@pytest.mark.parametrize("mark", ["<image>", "<video>"])
def test_marks_in_responses_do_not_move_the_rows_images_into_the_prompt(mark: str) -> None:
    media = {"images" if mark == "<image>" else "videos": [b"1", b"2"]}
    with pytest.raises(DataError, match=rf"^responses\[0\]: has a {mark} placeholder and the prompt none"):
        Comparison("draw", [f"{mark} good", f"{mark} bad"], **media)
    # The marks of the prompt are filled; in the response the word is a text.
    assert Comparison(f"{mark}{mark} draw", [f"{mark} good", "bad"], **media).responses[0] == f"{mark} good"
    assert Comparison("What is a mark?", [mark, "b"]).responses[0] == mark


@pytest.mark.parametrize(("better", "worse"), MEASURES)
def test_measures_that_contradict_the_order_are_refused(better: str, worse: str, tmp_path: Path) -> None:
    row = {"prompt": "Q", "chosen": "a", "rejected": "b"}
    assert reason(tmp_path, row | {better: 1, worse: 2.5}).startswith(
        f"{better}: 1 is less than {worse}, 2.5"
    )
    for high, low in ((2, 2), (3, 1), (None, 1), ("1", 2)):
        assert read(tmp_path, row | {better: high, worse: low}).ranks == (0, 1)
    file = write(tmp_path, row | {better: 1, worse: 2.5})
    [comparison] = DetectedDataset(file, ignored_columns=(better, worse))
    assert comparison == read(tmp_path, row)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("rlaif-v", {"question": "Q", "chosen": "a", "rejected": "b"}),
        ("rlhf-v", {"text": '{"question": "Q", "chosen": "a", "rejected": "b"}'}),
    ],
)
def test_the_place_of_an_image_that_is_not_there_is_refused(
    name: str, row: dict[str, Any], tmp_path: Path
) -> None:
    row |= {"ds_name": "V", "image_path": "cat.png"}
    dataset: FileDataset = PluginManager().build(
        "dataset", Component(name, {"path": str(write(tmp_path, row))})
    )
    error = dataset.comparison(row, tmp_path / "rows.jsonl", 1)
    assert isinstance(error, DataError)
    assert error.field == "image_path"


@pytest.mark.parametrize(
    ("column", "text"), [("tools", '[{"name": "f", "name": "g"}]'), ("meta", '{"a": 1, "a": 2}')]
)
def test_json_text_that_names_a_key_twice_is_refused(column: str, text: str, tmp_path: Path) -> None:
    said = reason(tmp_path, {"prompt": "Q", column: text, "responses": ["a", "b"], "ranks": [0, 1]})
    assert said.startswith(f"{column}: ")
    assert said.endswith("twice")
