"""A dry run of every recipe finds nothing wrong, and finds what would fail later, without starting it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from basereward.cli import main

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = [path.relative_to(RECIPES.parent).as_posix() for path in sorted(RECIPES.rglob("*.toml"))]
STUDIES = [path for path in FILES if "[axes" in (RECIPES.parent / path).read_text(encoding="utf-8")]
RUN_FILES = [path for path in FILES if path not in STUDIES and "/rl/" not in path]


@pytest.mark.parametrize("path", ["recipes/basereward-7b.toml", "recipes/two-stage-7b.toml"])
def test_a_run_file_would_start(path: str, cwd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(cwd.rglob("*"))
    assert main(["train", path, "--dry-run", "--overwrite", "--gpus", "8", "--gpu", "h100"]) == 0
    printed = capsys.readouterr().out
    assert "all of it would start" in printed
    assert "memory of 8 x H100" in printed
    assert sorted(cwd.rglob("*")) == before


@pytest.mark.parametrize("name", ["table-1", "table-7"])
def test_a_study_would_start(name: str, cwd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Path("runs/rl/r1-reward/model/reward_config.json")
    is_missing = name == "table-1" and not made.is_file()
    status = main(["study", f"recipes/studies/{name}.toml", "--dry-run"])
    printed = capsys.readouterr().out
    assert (status, "all of it would start" in printed) == ((1, False) if is_missing else (0, True)), printed
    assert "benchmark vl-rewardbench" in printed


@pytest.mark.slow
@pytest.mark.parametrize("path", [*RUN_FILES, *STUDIES])
def test_every_recipe_would_start(path: str, cwd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "table-1" in path:
        Path("runs/rl/r1-reward/model").mkdir(parents=True, exist_ok=True)
        Path("runs/rl/r1-reward/model/reward_config.json").touch()
    arguments = ["study", path] if path in STUDIES else ["train", path, "--overwrite"]
    assert main([*arguments, "--dry-run"]) == 0, capsys.readouterr().out


FAILS = {
    "no file": (["data.train.0.path=data/nowhere"], "data/nowhere: no such file"),
    "no split": (['data.train.7.split="train"'], "has no split 'train'; splits: if_on_policy_70b"),
    "no option": (["data.train.0.colour=1"], "dataset 'rlaif-v' has no option 'colour'"),
    "no part": (
        ['train.freeze=["eyes"]'],
        "train.freeze names eyes, and the parts are vision, projector, language",
    ),
    "no model to start from": (["init=runs/nowhere"], "is no model directory: it has no reward_config.json"),
    "texts alone": (
        ['backbone={name="causal-lm", model="Qwen/Qwen3-8B"}', "train.freeze=[]"],
        "no row that was read can be used: the model reads texts alone, and all have images",
    ),
    "no memory": (
        # Its files are not here, so that its published sizes count.
        ["backbone.model=Qwen/Qwen3-VL-32B-Instruct", "train.parallel=ddp"],
        "doesn't fit; see `basereward plan`",
    ),
}


@pytest.mark.parametrize("name", FAILS)
def test_what_would_fail_later_fails_at_once(
    name: str, cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, message = FAILS[name]
    overrides = [text for setting in settings for text in ("--set", setting)]
    arguments = ["--dry-run", "--overwrite", "--gpus", "64", "--gpu", "h100"]
    assert main(["train", "recipes/basereward-7b.toml", *arguments, *overrides]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert message in printed
    assert "problems" in printed


def test_images_that_are_not_there_are_found(
    cwd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("data/MMPR-v1.2", tmp_path / "MMPR-v1.2")
    shutil.rmtree(tmp_path / "MMPR-v1.2" / "images")
    setting = f"data.train.1.path={tmp_path / 'MMPR-v1.2'}"
    assert main(["train", "recipes/basereward-7b.toml", "--dry-run", "--overwrite", "--set", setting]) == 1
    # Two parts of three have images: 10 rows of each of the three files are looked at.
    assert "20 of 30 rows can't be used" in " ".join(capsys.readouterr().out.split())
