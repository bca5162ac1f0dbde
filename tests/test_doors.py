"""Every door through which a row, a request or a checkpoint can name a file, and what checks it.

A row of a table is a door: what names the file, and what opens it or refuses it. Files that are the user's to
name (options, arguments, `media_roots`, the images that a trainer hands over in memory) are no doors.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import published
import pytest
from published import write_rows

from basereward import Comparison, Component, ConfigError, DataError, ModelError, RewardModel
from basereward.backbones.transformers_model import load_model, load_tokenizer
from basereward.data import read_comparisons
from basereward.data.conversion import convert
from basereward.data.curation import Curation
from basereward.data.formats import DetectedDataset, open_rows
from basereward.data.writing import open_writer
from basereward.errors import BaseRewardError
from basereward.integrations.ray_data import RewardStage
from basereward.media import Image, Video
from basereward.serving.limits import Limits
from basereward.serving.problems import Problem
from basereward.serving.request_parser import RequestParser

SECRET = published.image("blue")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a data set's directory; beside it lie an image and a folder of frames that aren't its own."""
    root = tmp_path / "set"
    root.mkdir()
    (root / "cat.png").write_bytes(published.image())
    (tmp_path / "secret.png").write_bytes(SECRET)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.png").write_bytes(SECRET)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "links").mkdir()
    (root / "links" / "1.png").symlink_to(tmp_path / "secret.png")
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr("1.png", SECRET)
    (root / "out.zip").symlink_to(tmp_path / "out.zip")
    return root


def part(**entries: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [entries]}]


PAIR = {"chosen": "a", "rejected": "b"}
ROWS: dict[str, dict[str, Any]] = {
    # Checked by `data.media_paths.Media`, where nothing else is said; {out} is the directory of other files.
    "images: an absolute path": {"images": ["{out}/secret.png"]},
    "images: ..": {"images": ["../secret.png"]},
    "images: a link": {"images": ["link.png"]},
    "images: a file URL": {"images": ["file://{out}/secret.png"]},
    "images: a member of an archive elsewhere": {"images": ["{out}/out.zip/1.png"]},
    "images: a link to an archive": {"images": ["out.zip/1.png"]},
    "images: a mapping's path": {"images": [{"bytes": None, "path": "{out}/secret.png"}]},
    "images: a mapping's bytes (base64 or refused, `media.image`)": {
        "images": [{"bytes": "{out}/secret.png"}]
    },
    "images: a nested mapping": {"images": [{"path": {"path": "{out}/secret.png"}}]},
    "images: another host (`data.download`)": {"images": ["http://127.0.0.1:9/secret.png"]},
    "images: another scheme (`data.download`)": {"images": ["s3://bucket/secret.png"]},
    "videos: a folder": {"videos": ["{out}/frames"]},
    "videos: a folder of links": {"videos": ["links"]},
    "videos: a file": {"videos": ["{out}/secret.png"]},
    "videos: frames": {"videos": [["../secret.png"]]},
    "videos: a mapping": {"videos": [{"video": "{out}/frames", "fps": 1}]},
    "videos: a mapping's frames": {"videos": [{"video": [{"bytes": "{out}/secret.png"}]}]},
    "a part's image": {"prompt": part(type="image", image="{out}/secret.png")},
    "a part's path": {"prompt": part(type="image", path="../secret.png")},
    "a part's bytes": {"prompt": part(type="image", bytes="{out}/secret.png")},
    "a part's mapping": {"prompt": part(type="image", image={"bytes": "{out}/secret.png"})},
    "a part's URL": {"prompt": part(type="image", url="file://{out}/secret.png")},
    "a part's address": {"prompt": part(type="image_url", image_url={"url": "{out}/secret.png"})},
    "a part's video": {"prompt": part(type="video", video="{out}/frames")},
    "a part's frames": {"prompt": part(type="video", video=["{out}/secret.png"])},
    "another column (`data.columns`)": {"image_path": "{out}/secret.png"},
    "a key of a message (`comparison`)": {
        "prompt": [{"role": "user", "content": "?", "images": ["../secret.png"]}]
    },
    "a turn's part": {
        "messages": part(type="image", image="{out}/secret.png"),
        "chosen": "a",
        "rejected": "b",
        "prompt": None,
        "responses": None,
    },
    "image of a pair": {"image": "{out}/secret.png", **PAIR, "responses": None},
    "video of a pair": {"video": "{out}/frames", **PAIR, "responses": None},
}


OPENED: list[Any] = []
"""The pixels' sizes of the images that readers have opened."""


def opened(comparison: Comparison) -> None:
    for image in comparison.images:
        OPENED.append(image.open().size)
    for video in comparison.videos:
        for frame in video.frames:
            frame.open()


def by_reading(file: Path, row: dict[str, Any]) -> None:
    """Open a row as `train`, `evaluate`, `data inspect` and the benchmarks do."""
    rows = read_comparisons(file)
    rows.on_bad_row = "fail"
    for comparison in rows:
        opened(comparison)


def by_detecting(file: Path, row: dict[str, Any]) -> None:
    """Open a row as `score --input` and `score-shards` do."""
    rows = open_rows(file)
    rows.on_bad_row = "fail"
    for comparison in rows:
        opened(comparison)


def by_converting(file: Path, row: dict[str, Any]) -> None:
    """Copy a row's images as `data convert` and `data curate` do."""
    target = file.parent / "converted.jsonl"
    with open_writer(target) as writer:
        outcome = convert(DetectedDataset(file).read(), Curation([]), writer)
    copies = [path for path in file.parent.glob("converted.jsonl-files/**/*") if path.is_file()]
    assert SECRET not in [path.read_bytes() for path in copies]
    if outcome.first is not None:
        raise outcome.first


def by_ray(file: Path, row: dict[str, Any]) -> None:
    """Open a row as the stage of Ray Data does, whose `root` is the directory of images."""
    stage = RewardStage.__new__(RewardStage)
    stage.rows = stage_rows(file.parent)
    [item] = [stage.rows.comparison(row, file.parent / "rows", 1)]
    if isinstance(item, DataError):
        raise item
    opened(item)


def stage_rows(root: Path) -> Any:
    from basereward.data.formats import row_reader
    from basereward.data.media_paths import Media

    rows = row_reader(None, {})
    rows.media = Media(root, roots=(), hosts=rows.media.hosts)
    return rows


READERS = {"read": by_reading, "detect": by_detecting, "convert": by_converting, "ray": by_ray}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ROWS)
def test_a_row_opens_nothing_but_the_files_of_its_data_set(name: str, reader: str, root: Path) -> None:
    row = {"prompt": "?", "responses": ["a", "b"], "ranks": [0, 1], **ROWS[name]}
    if row["responses"] is None:
        del row["ranks"]
    row = {key: value for key, value in row.items() if value is not None}
    row = json.loads(json.dumps(row).replace("{out}", str(root.parent)))
    file = write_rows(root / "rows.jsonl", [row], "jsonl")
    with pytest.raises(DataError) as error:
        READERS[reader](file, row)
    assert any(reason in str(error.value) for reason in REASONS)


REASONS = (
    "; allow its directory by the option media_roots",
    "; allow it by the option media_hosts = ",
    "holds text that is not base64",
    "an image's 'path' is a path",
    "image_path: unknown field",
    "must be a file, or a URL of http or https",
    "the key 'images' of a message is neither read",
)


@pytest.mark.parametrize("reader", READERS)
def test_each_reader_opens_the_files_of_the_data_set(reader: str, root: Path) -> None:
    row = {"prompt": "?", "responses": ["a", "b"], "ranks": [0, 1], "images": ["cat.png"]}
    OPENED.clear()
    READERS[reader](write_rows(root / "rows.jsonl", [row], "jsonl"), row)
    if reader == "convert":
        copies = [path.read_bytes() for path in root.glob("converted.jsonl-files/**/*.png")]
        assert copies == [(root / "cat.png").read_bytes()]
    else:
        assert len(OPENED) == 1


def settings_of_saved(root: Path) -> None:
    (root / "dataset_dict.json").write_text('{"splits": ["../other"]}')
    (root.parent / "other").mkdir()
    write_rows(root.parent / "other" / "a.jsonl", [{"prompt": "?", "responses": ["a"]}], "jsonl")


def state_of_saved(root: Path) -> None:
    (root / "state.json").write_text('{"_data_files": [{"filename": "../other.jsonl"}]}')
    write_rows(root.parent / "other.jsonl", [{"prompt": "?", "responses": ["a"]}], "jsonl")


def parts_of_mmpr(root: Path) -> None:
    (root / "meta.json").write_text('{"a": {"root": "..", "annotation": "../other.jsonl"}}')


LISTS: dict[str, tuple[Callable[[Path], None], str | None]] = {
    # Files of a data set that name others, and the data set; checked where they are read.
    "splits of `dataset_dict.json` (`data.reading.paths`)": (settings_of_saved, None),
    "files of `state.json` (`data.reading.paths`: the name alone)": (state_of_saved, None),
    "parts of MMPR's `meta.json` (`data.published.mmpr`)": (parts_of_mmpr, "mmpr"),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_files_names_none_outside_its_directory(name: str, root: Path) -> None:
    write, dataset = LISTS[name]
    write(root)
    with pytest.raises(DataError):
        list(read_comparisons(root, format=dataset))


REQUESTS = [
    "/etc/hostname",
    "file:///etc/hostname",
    "http://127.0.0.1:9/a.png",
    "//host/a.png",
    "../a.png",
    "C:\\a.png",
]


@pytest.mark.parametrize("text", REQUESTS)
def test_a_request_names_no_file(text: str) -> None:
    """Checked by `serving.request_parser`, whose images are base64; every API has its images of it."""
    with pytest.raises(Problem):
        RequestParser(Limits()).image(text)
    inside = base64.b64encode(text.encode()).decode()
    with pytest.raises(Problem):
        RequestParser(Limits()).image(inside)


def shards(directory: Path) -> None:
    shutil.move(directory / "model.safetensors", directory.parent / "weights.safetensors")
    places = {"norm.weight": "../weights.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def tokenizer_file(directory: Path) -> None:
    shutil.move(directory / "tokenizer.json", directory.parent / "tokenizer.json")
    file = directory / "tokenizer_config.json"
    outside = str(directory.parent / "tokenizer.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "tokenizer_file": outside}))


def adapter(directory: Path) -> None:
    base = {"peft_type": "LORA", "base_model_name_or_path": str(directory.parent / "elsewhere")}
    (directory / "adapter_config.json").write_text(json.dumps(base))


def code(directory: Path) -> None:
    file = directory / "config.json"
    maps = {"auto_map": {"AutoModel": "code.Model"}, "model_type": "unheard-of"}
    file.write_text(json.dumps({**json.loads(file.read_text()), **maps}))
    (directory / "code.py").write_text("raise SystemExit")


def pickled(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    # Checked by `backbones.transformers_model` before transformers sees the directory.
    "shards of the index": shards,
    "the tokenizer's files": tokenizer_file,
    "an adapter's base model": adapter,
    "code beside the weights": code,
    "pickled weights": pickled,
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_names_no_file_outside_its_directory(
    name: str, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    directory = tmp_path / "checkpoint"
    shutil.copytree(tiny_models["qwen2"], directory)
    CHECKPOINTS[name](directory)
    with pytest.raises(BaseRewardError):
        _ = load_model(str(directory), dtype="float32"), load_tokenizer(str(directory))


def linked(directory: Path) -> None:
    target = directory.parent / "config.json"
    shutil.move(directory / "config.json", target)
    (directory / "config.json").symlink_to(target)


def extra(directory: Path) -> None:
    adapter(directory)


def renamed(directory: Path) -> None:
    file = directory / "reward_config.json"
    config = json.loads(file.read_text())
    config["files"] = {f"../{directory.name}/{name}": digest for name, digest in config["files"].items()}
    file.write_text(json.dumps(config))


def component(directory: Path) -> None:
    file = directory / "reward_config.json"
    config = json.loads(file.read_text())
    config["components"]["head"]["name"] = "os:system"
    file.write_text(json.dumps(config))


MODELS: dict[str, Callable[[Path], None]] = {
    # Checked by `storage.model_directory`, and components by the plugin manager: names, no import paths.
    "a link": linked,
    "a file that isn't listed": extra,
    "a listed file elsewhere": renamed,
    "a component by its import path": component,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_directory_names_no_file_outside_it(
    name: str, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    directory = tmp_path / "model"
    RewardModel.build(backbone=Component("causal-lm", {"model": str(tiny_models["qwen2"])})).save(directory)
    MODELS[name](directory)
    with pytest.raises((ModelError, ConfigError, BaseRewardError)):
        RewardModel.load(directory)


def test_a_members_name_is_no_path_and_a_judge_template_none_either(tmp_path: Path) -> None:
    from basereward.paradigms.judge_template import JudgeTemplate
    from basereward.scoring.ensemble import Ensemble

    config = {
        "schema_version": 1,
        "components": {"ensembler": {"name": "mean", "options": {}}},
        "record": {},
        "files": {},
        "members": [{"name": "../elsewhere", "measured": None}],
    }
    (tmp_path / "reward_config.json").write_text(json.dumps(config))
    with pytest.raises(BaseRewardError):
        Ensemble.load(tmp_path)
    with pytest.raises(ConfigError, match="unknown judge template"):
        JudgeTemplate.load("../../secret")


def test_in_python_and_in_a_trainers_process_paths_are_the_users_own(root: Path) -> None:
    """`Image`, `Video`, `Comparison` and the functions for trainers open what they are given."""
    outside = root.parent / "secret.png"
    assert Image(str(outside)).encoded() == SECRET
    assert Video(str(root.parent / "frames")).frames[0].encoded() == SECRET
    assert Comparison("?", ["a"], images=[os.fspath(outside)]).images[0].encoded() == SECRET
