"""The format of a file is recognized by the fields of its rows."""

from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from basereward import DataError
from basereward.config import Component
from basereward.data import FileDataset, NativeDataset, TRLDataset, read_comparisons
from basereward.data.formats import DetectedDataset, detected, format_of, formats
from basereward.errors import PluginError
from basereward.hookspecs import hookimpl
from basereward.plugins import PluginManager, PluginWarning

if TYPE_CHECKING:
    from pathlib import Path

    from basereward.data.reading.row import Row

OWN = {"prompt": "p", "responses": ["a", "b"], "ranks": [0, 1]}
PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def test_the_first_readable_row_tells_the_format(tmp_path: Path) -> None:
    native = read_comparisons(write(tmp_path / "native.jsonl", "broken\n", OWN, PAIR))
    assert isinstance(native, NativeDataset)
    assert len(list(native)) == 1
    assert [error.line for error in native.rejected] == [1, 3]
    pairs = read_comparisons(write(tmp_path / "pairs.jsonl", PAIR))
    assert isinstance(pairs, TRLDataset)
    assert [item.responses for item in pairs] == [("a", "b")]


def test_a_named_format_is_not_looked_for(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {**PAIR, **OWN})
    assert isinstance(read_comparisons(file), NativeDataset)
    assert isinstance(read_comparisons(file, format="trl"), TRLDataset)
    with pytest.raises(PluginError, match="^unknown dataset 'csv'; datasets: alpaca, axolotl, basereward, "):
        read_comparisons(file, format="csv", plugins=PluginManager())


def test_what_is_of_no_known_format_is_refused_with_what_it_has(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"question": "q", "answer": "a"})
    with pytest.raises(DataError) as error:
        read_comparisons(file, plugins=PluginManager())
    assert str(error.value) == (
        f"{file}:1: the fields question, answer are of no known format; "
        "to be r1-reward-rl, they lack message; to be ms-swift, they lack response, rejected_response; "
        "to be orca, they lack chosen, rejected; other formats: alpaca, axolotl, basereward, ixc, "
        "povid, rlaif-v, sharegpt, shp, swe-arena, trl, trl-stepwise, ultrafeedback, vlfeedback, "
        "wildvision-battle; `basereward show dataset NAME` tells its fields"
    )


def test_what_shares_no_field_with_any_format_is_told_their_names(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"text": "q"})
    with pytest.raises(DataError, match=": the fields text are of no known format; formats: alpaca, "):
        read_comparisons(file, plugins=PluginManager())


class Votes(FileDataset):
    """A plugin's format: TRL's with a count of votes."""

    detected_by = ("chosen", "rejected", "question", "votes")

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        ratings = [row["votes"], 0]
        return {"prompt": row["question"], "responses": [row["chosen"], row["rejected"]], "ratings": ratings}


def plugins_with(target: object) -> PluginManager:
    plugin = ModuleType("votes")

    @hookimpl
    def basereward_datasets() -> dict[str, object]:
        return {"votes": target}

    vars(plugin)["basereward_datasets"] = basereward_datasets
    return PluginManager([plugin])


def test_the_dataset_of_a_plugin_is_named_and_recognized(tmp_path: Path) -> None:
    row = {"question": "q", "chosen": "a", "rejected": "b", "votes": 3}
    file = write(tmp_path / "a.jsonl", row)
    plugins = plugins_with(Votes)
    for format in (None, "votes"):
        [comparison] = read_comparisons(file, format=format, plugins=plugins)
        assert comparison.ratings == (3.0, 0.0)
    assert detected(file, plugins=PluginManager()) == "orca"


def test_a_dataset_that_does_not_load_leaves_the_others_recognized(tmp_path: Path) -> None:
    plugins = plugins_with("nowhere:Votes")
    with pytest.warns(PluginWarning, match=r"dataset 'votes' of plugin 'votes' \(nowhere:Votes\) failed to"):
        assert detected(write(tmp_path / "a.jsonl", PAIR), plugins=plugins) == "trl"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ("prompt responses chosen rejected question", "basereward"),
        ("prompt chosen rejected conversations", "trl"),
        ("prompt chosen", "trl"),
        ("conversations chosen rejected", "sharegpt"),
        ("question chosen rejected", "orca"),
        ("system question chosen rejected", "orca"),
        ("ds_name question chosen rejected", "rlaif-v"),
        ("instruction chosen rejected", "alpaca"),
        ("instruction input chosen rejected", "alpaca"),
        ("input chosen rejected", "axolotl"),
        ("system prompt chosen rejected", "axolotl"),
        ("instruction chosen_response rejected_response", "axolotl"),
        ("query response rejected_response", "ms-swift"),
        ("messages rejected_response", "sharegpt"),
        ("messages rejected_messages", "sharegpt"),
        ("messages chosen rejected", "sharegpt"),
        ("prompt messages chosen rejected", "trl"),
        ("chosen rejected note", "trl"),
        ("responses", None),
    ],
)
def test_a_row_is_of_the_format_with_most_of_its_fields(fields: str, name: str | None) -> None:
    assert format_of(dict.fromkeys(fields.split()), formats(PluginManager())) == name


def test_each_row_of_a_file_may_be_of_a_format_of_its_own(tmp_path: Path) -> None:
    dialog = {"conversations": ["p"], "chosen": "c", "rejected": "d"}
    dataset = DetectedDataset(write(tmp_path / "a.jsonl", OWN, PAIR, {"question": "q"}, dialog))
    assert [item.responses for item in dataset] == [("a", "b"), ("a", "b"), ("c", "d")]
    assert [error.line for error in dataset.rejected] == [3]


def test_a_file_without_a_readable_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_comparisons(write(tmp_path / "a.jsonl"))
    assert str(error.value) == f"{tmp_path}/a.jsonl: has no rows"
    with pytest.raises(DataError) as error:
        read_comparisons(write(tmp_path / "a.jsonl", "x\n", "y\n"))
    assert str(error.value) == (
        f"{tmp_path}/a.jsonl: has no row that can be read; "
        f"the first: {tmp_path}/a.jsonl:1: is not JSON: Expecting value at column 1"
    )


def test_both_formats_are_components(tmp_path: Path) -> None:
    manager = PluginManager()
    for name, row in (("basereward", OWN), ("trl", PAIR)):
        file = write(tmp_path / f"{name}.jsonl", row)
        dataset = manager.build("dataset", Component(name, {"path": str(file), "source": "set"}))
        assert [item.source for item in dataset] == ["set"]


def test_reading_data_imports_neither_torch_nor_pyarrow() -> None:
    program = (
        "import sys, basereward.data; print(sorted({'torch', 'numpy', 'pyarrow', 'PIL'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert output.stdout == "[]\n"
