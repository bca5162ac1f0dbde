"""The data files of paths: directories of all kinds, splits, and downloads from the hub."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import published
import pytest
from published import write_rows

from basereward import DataError
from basereward.data import NativeDataset, TRLDataset, read_comparisons
from basereward.data.reading.paths import files_of, local_path, media_root

pyarrow = pytest.importorskip("pyarrow")

ROW = {"prompt": "p", "chosen": "a", "rejected": "b"}


def names(path: Path, **options: str) -> list[str]:
    return [file.relative_to(path).as_posix() for file in files_of(path, **options)]


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def test_a_download_of_the_hub_is_the_shards_of_one_split(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "README.md",
        "data/train-00001-of-00002.parquet",
        "data/train-00000-of-00002.parquet",
        "data/test-00000-of-00001.parquet",
        "data/wildchat_if-00000-of-00001.parquet",
    )
    assert names(tmp_path) == ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]
    assert names(tmp_path, split="wildchat_if") == ["data/wildchat_if-00000-of-00001.parquet"]
    with pytest.raises(DataError) as error:
        files_of(tmp_path, split="dev")
    assert str(error.value) == f"{tmp_path}: has no split 'dev'; splits: test, train, wildchat_if"


def test_the_only_split_is_read_and_of_several_one_must_be_train_or_named(tmp_path: Path) -> None:
    touch(tmp_path, "only/eval.jsonl", "several/test.jsonl", "several/dev.jsonl")
    assert names(tmp_path / "only") == ["eval.jsonl"]
    with pytest.raises(DataError) as error:
        files_of(tmp_path / "only", split="train")
    assert str(error.value) == f"{tmp_path / 'only'}: has no split 'train'; splits: eval"
    with pytest.raises(DataError) as error:
        files_of(tmp_path / "several")
    message = "has the splits dev, test; name one or a list, as split = ['dev', 'test']"
    assert str(error.value) == f"{tmp_path / 'several'}: {message}"


def test_several_splits_are_read_where_they_are_listed(tmp_path: Path) -> None:
    files = ("a-00000-of-00001.parquet", "b-00000-of-00002.parquet", "b-00001-of-00002.parquet", "c.jsonl")
    touch(tmp_path, *files, "d-00000-of-00001.parquet")
    assert names(tmp_path, split=("b", "a")) == list(files)
    assert names(tmp_path, split=("b", "b")) == list(files[1:])
    with pytest.raises(DataError, match="has no split 'e'; splits: a, b, d$"):
        files_of(tmp_path, split=("a", "e"))
    with pytest.raises(DataError, match="is to be read without any split; splits: a, b, d$"):
        files_of(tmp_path, split=())


def test_splits_that_are_not_read_are_named(tmp_path: Path) -> None:
    for name in ("train", "eval", "more"):
        write_rows(tmp_path / f"{name}.jsonl", [ROW], "jsonl")
    dataset = TRLDataset(tmp_path)
    assert [file.name for file in dataset.files] == ["more.jsonl", "train.jsonl"]
    assert dataset.unread_splits == f"{tmp_path} has other splits, which are not read: eval; see option split"
    assert TRLDataset(tmp_path / "eval.jsonl").unread_splits == ""


def test_files_without_a_split_in_their_name_are_read_with_every_split(tmp_path: Path) -> None:
    touch(tmp_path, "flan.jsonl", "sharegpt.jsonl", "evol_instruct.jsonl")
    assert names(tmp_path) == ["evol_instruct.jsonl", "flan.jsonl", "sharegpt.jsonl"]
    assert names(tmp_path, split="test") == names(tmp_path)


def test_configs_are_directories(tmp_path: Path) -> None:
    touch(tmp_path, "pairwise/train-00000-of-00001.parquet", "pointwise/train-00000-of-00001.parquet")
    assert names(tmp_path) == [
        "pairwise/train-00000-of-00001.parquet",
        "pointwise/train-00000-of-00001.parquet",
    ]
    assert names(tmp_path, config="pointwise") == ["pointwise/train-00000-of-00001.parquet"]


def test_json_files_count_where_there_are_no_others_and_settings_never(tmp_path: Path) -> None:
    touch(tmp_path, "askbaking/train.json", "askbaking/test.json", "askcars/train.json", "dataset_infos.json")
    assert names(tmp_path) == ["askbaking/train.json", "askcars/train.json"]
    touch(tmp_path, "rows.jsonl")
    assert names(tmp_path) == ["rows.jsonl"]


def test_what_datasets_saved_is_read_by_its_own_list_of_files(tmp_path: Path) -> None:
    for split in ("train", "test"):
        touch(tmp_path, *(f"{split}/data-0000{number}-of-00002.arrow" for number in (0, 1)))
        entries = [{"filename": f"data-0000{number}-of-00002.arrow"} for number in (0, 1)]
        (tmp_path / split / "state.json").write_text(json.dumps({"_data_files": entries}))
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert names(tmp_path, split="test") == [
        "test/data-00000-of-00002.arrow",
        "test/data-00001-of-00002.arrow",
    ]
    assert names(tmp_path / "train") == ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    with pytest.raises(DataError) as error:
        files_of(tmp_path, split="dev")
    assert str(error.value) == f"{tmp_path}: has no split 'dev'; splits: test, train"
    for damaged in ("{}", "[]", "{", '{"splits": 5}'):
        (tmp_path / "dataset_dict.json").write_text(damaged)
        with pytest.raises(DataError) as error:
            files_of(tmp_path)
        assert (
            str(error.value) == f"{tmp_path}/dataset_dict.json: is no dataset_dict.json of a saved data set"
        )


def test_a_saved_list_of_files_cannot_lead_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../../etc/passwd"}]}))
    with pytest.raises(DataError, match="names '../../etc/passwd', which is no file there$"):
        files_of(tmp_path)
    (tmp_path / "passwd").touch()
    assert files_of(tmp_path) == [tmp_path / "passwd"]


def test_arrow_files_of_both_kinds_are_read(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist([{**ROW, "chosen": f"a{number}"} for number in range(100)])
    with pyarrow.ipc.new_stream(str(tmp_path / "stream.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=40)
    with pyarrow.ipc.new_file(str(tmp_path / "file.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=40)
    for name in ("stream.arrow", "file.arrow"):
        dataset = TRLDataset(tmp_path / name)
        assert [item.responses[0] for item in dataset] == [f"a{number}" for number in range(100)]
        assert dataset.num_rows == 100
        content = (tmp_path / name).read_bytes()
        (tmp_path / "short").write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=rf"^{tmp_path}/short: the Arrow file is damaged after row \d+$"):
            list(TRLDataset(tmp_path / "short"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Put a download of the hub's in the place of every other; return what is asked for."""
    snapshot = tmp_path / "datasets--owner--name" / "snapshots" / "0123"
    blobs = tmp_path / "datasets--owner--name" / "blobs"
    (snapshot / "data").mkdir(parents=True)
    blobs.mkdir()
    write_rows(blobs / "1", [{**ROW, "image": "../cat.png"}], "parquet")
    (blobs / "2").write_bytes(published.image())
    (snapshot / "data" / "train-00000-of-00001.parquet").symlink_to("../../../blobs/1")
    (snapshot / "cat.png").symlink_to("../../blobs/2")
    asked = []

    def download(name: str, *, repo_type: str, revision: str | None, ignore_patterns: list[str]) -> str:
        assert repo_type == "dataset"
        assert ignore_patterns == []  # of a data set everything is read
        asked.append((name, revision))
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return asked


def test_an_id_of_the_hub_is_downloaded_and_its_links_are_within_bounds(hub: list[object]) -> None:
    [comparison] = TRLDataset("owner/name@v1")
    assert comparison.images[0].open().size == (8, 8)
    assert comparison.source == "name@v1"
    [same] = read_comparisons("owner/name")
    assert same == comparison or same.responses == comparison.responses
    assert hub == [("owner/name", "v1"), ("owner/name", None), ("owner/name", None)]


def test_a_path_that_exists_or_looks_like_a_file_is_not_looked_for_on_the_hub(
    hub: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "owner/name")
    assert local_path("owner/name") == Path("owner/name")
    for path in ("data/train.jsonl", "data/train.parquet", "a/b/c", "name", Path("other/name")):
        assert local_path(path) == Path(path)
    assert hub == []


def test_an_id_that_cannot_be_downloaded_is_an_error() -> None:
    with pytest.raises(DataError) as error:
        NativeDataset("nobody/nothing")
    assert str(error.value) == (
        "nobody/nothing: no such file or directory, and no data set of this name can be downloaded"
    )


def test_the_bounds_of_images_are_the_directory_or_the_hubs_own(tmp_path: Path) -> None:
    touch(tmp_path, "a/rows.jsonl", "x/snapshots/0123/data/rows.jsonl")
    assert media_root(tmp_path / "a" / "rows.jsonl") == tmp_path / "a"
    assert media_root(tmp_path / "a") == tmp_path / "a"
    assert media_root(tmp_path / "x/snapshots/0123") == tmp_path / "x/snapshots/0123"
    (tmp_path / "x" / "blobs").mkdir()
    assert media_root(tmp_path / "x/snapshots/0123/data/rows.jsonl") == tmp_path / "x"


@pytest.mark.parametrize(
    "splits", [["."], [".."], ["../x"], [1], ["/etc"], [None], [""], "train", {"train": 1}, 5]
)
def test_a_saved_list_of_splits_is_not_believed(tmp_path: Path, splits: Any) -> None:
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.jsonl").write_text("{}")
    with pytest.raises(DataError, match="dataset_dict.json"):
        files_of(tmp_path)


@pytest.mark.parametrize("target", [".", "..", "/"])
def test_a_split_that_is_a_link_elsewhere_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (tmp_path / "train").symlink_to(target)
    with pytest.raises(DataError, match="leads out of the data set's directory"):
        files_of(tmp_path)


@pytest.mark.parametrize(
    "entries", [[1], [{}], [{"filename": 1}], [{"filename": ".."}], [{"filename": "none"}], 1]
)
def test_a_saved_list_of_files_is_not_believed(tmp_path: Path, entries: Any) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": entries}))
    with pytest.raises(DataError, match="state.json"):
        files_of(tmp_path)


def test_a_pipe_among_settings_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "dataset_dict.json")
    with pytest.raises(DataError, match="no file named"):
        files_of(tmp_path)
