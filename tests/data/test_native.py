"""Our own format, from JSONL and from Parquet, with its bad rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from basereward import Comparison, DataError
from basereward.comparison import Place
from basereward.data import NativeDataset
from basereward.data.dataset import comparison_of
from basereward.data.media_paths import Media

ELSEWHERE = "; images that lie elsewhere: option media_dir"

if TYPE_CHECKING:
    from pathlib import Path

GOOD = {"prompt": "What is shown?", "responses": ["a cat", "a dog"], "ranks": [0, 1]}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "cat.png"
    Pillow.new("RGB", (8, 8), "red").save(path)
    return path


def test_a_row_becomes_a_comparison_with_its_images(tmp_path: Path, image: Path) -> None:
    row = {
        "id": "row-7",
        "prompt": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "<image>What?"}],
        "images": ["images/cat.png"],
        "responses": ["a", "b", "c"],
        "ratings": [1, 3, 1],
        "weight": 0.5,
        "source": "mine",
        "meta": {"split": "test"},
    }
    [comparison] = NativeDataset(write(tmp_path / "a.jsonl", row))
    assert comparison.images[0].source == image
    assert comparison.prompt[1].content == (comparison.images[0], "What?")
    assert comparison.ranks == (1.0, 0.0, 1.0)
    assert (comparison.id, comparison.source, comparison.weight) == ("row-7", "mine", 0.5)
    assert comparison.meta["split"] == "test"
    assert comparison.place == Place(f"{tmp_path}/a.jsonl", 1)


def test_a_comparison_of_a_file_is_written_as_the_row_it_was(tmp_path: Path) -> None:
    row = {
        "id": "7",
        "prompt": [{"role": "user", "content": "p"}],
        "images": [],
        "responses": ["a", "b"],
        "source": "mine",
        "meta": {"_place": "under the table"},
    }
    [comparison] = NativeDataset(write(tmp_path / "a.jsonl", row))
    assert comparison.to_dict() == row


def test_where_a_comparison_was_read_is_no_part_of_it(tmp_path: Path) -> None:
    row = {**GOOD, "id": "7", "source": "mine"}
    [first, second] = NativeDataset(write(tmp_path / "a.jsonl", row, row))
    assert (first, hash(first)) == (second, hash(second))
    assert [first.place.line, second.place.line] == [1, 2]
    assert first == Comparison.from_dict(row)
    assert first.with_meta(note=1).without_images().place == first.place


def test_a_row_without_id_or_source_is_named_by_its_place(tmp_path: Path) -> None:
    first, second = NativeDataset(write(tmp_path / "pets.v2.jsonl", GOOD, {**GOOD, "id": None, "source": ""}))
    assert [(item.id, item.source) for item in (first, second)] == [
        ("pets.v2.jsonl:1", "pets"),
        ("pets.v2.jsonl:2", "pets"),
    ]
    [named, _] = NativeDataset(tmp_path / "pets.v2.jsonl", source="animals")
    assert named.source == "animals"


def test_an_image_may_stand_in_the_content_of_a_message(tmp_path: Path, image: Path) -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "image", "image": "images/cat.png"}]
    row = {**GOOD, "prompt": [{"role": "user", "content": parts}]}
    [comparison] = NativeDataset(write(tmp_path / "a.jsonl", row))
    assert [part if isinstance(part, str) else part.source for part in comparison.prompt[0].content] == [
        "What is ",
        image,
    ]


def test_parquet_and_jsonl_give_the_same_comparisons(tmp_path: Path, image: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {
            **GOOD,
            "images": [{"path": "images/cat.png", "bytes": None}],
            "ratings": None,
            "weight": None,
            "meta": {"split": "a"},
        },
        {**GOOD, "images": None, "ratings": [2.5, 1.0], "weight": 2.0, "meta": None},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    rows[0]["images"] = ["images/cat.png"]
    as_json = list(NativeDataset(write(tmp_path / "a.jsonl", *rows)))
    as_table = list(NativeDataset(tmp_path / "a.parquet"))
    assert [item.to_dict() | {"id": "", "meta": 0} for item in as_json] == [
        item.to_dict() | {"id": "", "meta": 0} for item in as_table
    ]


def test_parquet_may_hold_the_image_itself(tmp_path: Path, image: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    row = {**GOOD, "images": [{"path": "elsewhere.png", "bytes": image.read_bytes()}]}
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
    [comparison] = NativeDataset(tmp_path / "a.parquet")
    assert comparison.images[0].open().getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{broken\n", "is not JSON: Expecting property name enclosed in double quotes at column 2"),
        ({"responses": ["a"]}, "prompt: is missing"),
        ({"prompt": "p", "responses": []}, "responses: the list is empty; at least one response is needed"),
        ({"prompt": "p", "responses": ["a", " "]}, "responses[1]: is empty"),
        (
            {"prompt": "p", "responses": ["a", "a"], "ranks": [0, 1]},
            "responses[1]: is identical to responses[0], but ranked differently",
        ),
        (
            '{"prompt": "p", "responses": ["a", "b"], "ranks": [0, NaN]}\n',
            "ranks[1]: a finite number is needed, not nan",
        ),
        ({**GOOD, "ranks": [0]}, "ranks: 1 values for 2 responses"),
        ({**GOOD, "images": ["none.png"]}, "images[0]: there is no file {directory}/none.png{elsewhere}"),
        ({**GOOD, "images": ["images"]}, "images[0]: {directory}/images is no regular file"),
        ({**GOOD, "images": ["x" * 5000]}, "images[0]: can't look for " + "x" * 60 + ": File name too long"),
        (
            {**GOOD, "images": ["https://x.org/cat.png"]},
            "images[0]: is a URL (https://x.org/cat.png), and nothing is fetched from x.org; allow it by "
            "the option media_hosts = ['x.org'], or download the file",
        ),
        ({**GOOD, "images": [None]}, "images[0]: is null; leave the image out instead"),
        (
            {**GOOD, "prompt": "<image>?"},
            "images: the prompt has 1 <image> placeholder and the row 0 images",
        ),
        (
            {**GOOD, "prompt": [{"role": "judge", "content": "p"}]},
            "prompt: unknown role 'judge'; roles: system, user, assistant, tool",
        ),
        (
            {"prompt": "p", "responses": ["a", "b", "c"], "ranks": [1, 0, 2], "ratings": [2, 3, 2.5]},
            "ratings: responses[0] has a better rank than responses[2], and a lower rating",
        ),
        (
            {**GOOD, "prompt": '[{"role": "user", "content": "p"}]'},
            "prompt: is a conversation as JSON text; store it as a list of messages",
        ),
        (
            {**GOOD, "images": [{"path": "images/cat.png", "rotation": 90}]},
            "images[0]: the key 'rotation' of an image is neither read nor known to say nothing of the "
            "answer",
        ),
        (
            {**GOOD, "prompt": [{"role": "user", "content": [{"type": "image", "image": "a", "path": "b"}]}]},
            "prompt: an image has one source, not both 'image' and 'path'",
        ),
        (
            {
                **GOOD,
                "prompt": [{"role": "user", "content": [{"type": "image", "image": "a", "rotation": 1}]}],
            },
            "prompt[0]: the key 'rotation' of a content part is neither read nor known to say nothing of the "
            "answer",
        ),
        ({**GOOD, "meta": "text"}, "meta: must be an object, not a str"),
        (
            {**GOOD, "reponses": []},
            "reponses: unknown field; fields: id, prompt, tools, images, videos, responses, ranks, ratings, "
            "weight, source, meta",
        ),
    ],
)
def test_a_bad_row_is_listed_with_file_line_field_and_reason(
    tmp_path: Path, image: Path, row: object, message: str
) -> None:
    file = write(tmp_path / "a.jsonl", GOOD, row, GOOD)
    expected = f"{file}:2: {message.format(directory=tmp_path, elsewhere=ELSEWHERE)}"
    dataset = NativeDataset(file)
    assert [comparison.place.line for comparison in dataset] == [1, 3]
    assert [str(error) for error in dataset.rejected] == [expected]

    dataset.on_bad_row = "fail"
    with pytest.raises(DataError) as error:
        list(dataset)
    assert str(error.value) == expected
    assert (error.value.file, error.value.line) == (str(file), 2)


def test_each_pass_lists_its_own_bad_rows_in_the_same_order(tmp_path: Path) -> None:
    dataset = NativeDataset(write(tmp_path / "a.jsonl", "x\n", GOOD, "y\n", GOOD))
    passes = []
    for _ in range(2):
        comparisons = list(dataset)
        passes.append((comparisons, [str(error) for error in dataset.rejected]))
    assert passes[0] == passes[1]
    assert len(passes[0][0]) == len(passes[0][1]) == 2


def test_a_row_is_read_only_when_it_is_asked_for(tmp_path: Path) -> None:
    rows = iter(NativeDataset(write(tmp_path / "a.jsonl", GOOD, *["[\n"] * 3)))
    assert next(rows).responses == ("a cat", "a dog")


def test_the_number_of_rows_is_known_for_progress_bars(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / name, GOOD, GOOD)
    assert NativeDataset(tmp_path).num_rows == 4
    assert len(list(NativeDataset(tmp_path))) == 4


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["id", "prompt", "images", "responses", "ranks", "ratings", "weight", "source", "meta", "other"]
)
MESSAGES = st.lists(
    st.fixed_dictionaries({}, optional={"role": st.sampled_from(["user", "x"]) | JSON, "content": JSON}),
    max_size=2,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(FIELDS, JSON | MESSAGES, max_size=9), st.booleans())
@example({"ranks": False}, True)
@example({"ratings": 3}, True)
def test_no_row_raises_anything_but_a_data_error(
    tmp_path: Path, row: dict[str, object], is_filled: bool
) -> None:
    row = {**GOOD, **row} if is_filled else row
    try:
        comparison = comparison_of(Media(tmp_path).located(row, tmp_path), file="a.jsonl", line=1)
    except DataError:
        return
    assert isinstance(comparison, Comparison)
    comparison.to_dict()
