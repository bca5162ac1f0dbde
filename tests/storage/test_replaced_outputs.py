"""Directories of ours are replaced by the next output, unless a file of somebody else lies in them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

from basereward import Comparison, ConfigError, Ensemble, RewardModel
from basereward.config import Component, LoraConfig, TrainConfig
from basereward.data.writing import open_writer
from basereward.interop.exporting import export_model
from basereward.training.lora import Adapters

Save = Callable[[Path], object]


def reward_model(models: dict[str, Path]) -> RewardModel:
    return RewardModel.build(backbone=Component("causal-lm", {"model": str(models["llama"])}))


def save_ensemble(models: dict[str, Path], directory: Path) -> None:
    member = directory.with_name("member")
    if not member.exists():
        reward_model(models).save(member)
    Ensemble.of([member]).save(directory)


def save_adapters(models: dict[str, Path], directory: Path) -> None:
    config = TrainConfig(lora=LoraConfig(rank=2))
    Adapters(reward_model(models).backbone, config, str(models["llama"])).save(directory)


def write_rows(directory: Path) -> None:
    image = tiny.image()
    with open_writer(directory.with_name(directory.name.removesuffix("-files")), overwrite=True) as writer:
        writer.write(Comparison("what is it", ["a cat", "a dog"], images=[image]))
        (writer.files_aside / "rejected.jsonl").write_text("")


def saves(models: dict[str, Path], kind: str) -> Save:
    return {
        "model": lambda directory: reward_model(models).save(directory),
        "ensemble": lambda directory: save_ensemble(models, directory),
        "export": lambda directory: export_model(reward_model(models), directory),
        "export of layers": lambda directory: export_model(
            RewardModel.build(
                backbone=Component("causal-lm", {"model": str(models["llama"])}), head=Component("mlp")
            ),
            directory,
        ),
        "adapters": lambda directory: save_adapters(models, directory),
        "rows": write_rows,
    }[kind]


@pytest.mark.parametrize("kind", ["model", "ensemble", "export", "export of layers", "adapters", "rows"])
def test_an_output_replaces_its_like_but_no_file_of_somebody_else(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    save = saves(tiny_models, kind)
    directory = tmp_path / "out.jsonl-files"
    save(directory)
    save(directory)
    written = {path: path.stat().st_ino for path in directory.rglob("*")}
    inner = next((path for path in directory.iterdir() if path.is_dir()), directory)
    for name in ("notes.md", ".notes", "sub/notes.txt"):
        for notes in {directory / name, inner / name}:
            made = not notes.parent.exists()
            notes.parent.mkdir(exist_ok=True)
            notes.write_text("mine")
            told = re.escape(f"has not written ({notes.relative_to(directory)}), and")
            with pytest.raises(ConfigError, match=told):
                save(directory)
            assert notes.read_text() == "mine"
            notes.unlink()
            if made:
                notes.parent.rmdir()
    assert {path: path.stat().st_ino for path in directory.rglob("*")} == written
    save(directory)


@pytest.mark.parametrize("mark", ["reward_config.json", "basereward_export.json"])
@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"files": None})])
def test_a_mark_without_a_list_of_files_marks_nothing(
    tiny_models: dict[str, Path], tmp_path: Path, mark: str, content: str
) -> None:
    (tmp_path / mark).write_text(content)
    save: Save = saves(tiny_models, "model" if mark == "reward_config.json" else "export")
    with pytest.raises(ConfigError, match="holds files that BaseReward has not written"):
        save(tmp_path)
    assert (tmp_path / mark).read_text() == content
