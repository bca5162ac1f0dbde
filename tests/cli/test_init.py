"""`basereward init` and `train --model`: a run file for a model and data, which trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

from basereward.cli import main
from basereward.config import load_run
from basereward.config.conversion import Component


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a directory with pairs of texts, pairs with images, a text model and one that sees."""
    monkeypatch.chdir(tmp_path)
    Path("text").symlink_to(tiny_models["llama"])
    Path("sees").symlink_to(tiny_models["qwen2_vl"])
    tiny.image().save("a.png")
    pairs = [{"prompt": f"q{number}", "chosen": "yes", "rejected": "no"} for number in range(12)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    seen = [{**row, "images": ["a.png"]} for row in pairs]
    Path("seen.jsonl").write_text("".join(json.dumps(row) + "\n" for row in seen))
    return tmp_path


def test_the_file_is_a_run_that_trains(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--model", "text", "--data", "pairs.jsonl", "--eval", "pairs.jsonl"]) == 0
    assert capsys.readouterr().out == "wrote run.toml; next: basereward train run.toml\n"
    run = load_run("run.toml")
    assert run.backbone == Component("causal-lm", {"model": "text"})
    assert [source.name for source in run.data.train] == ["trl"]
    comment = "# 12 rows of the layout trl: without images, mostly of 2 responses.\n"
    assert comment in Path("run.toml").read_text()
    assert main(["train", "run.toml", "--set", "train.max_steps=1", "--quiet"]) == 0
    assert "model: runs/pairs/model" in capsys.readouterr().out


def test_a_model_that_sees_trains_without_its_vision_tower_or_by_adapters() -> None:
    assert main(["init", "whole.toml", "--model", "sees", "--data", "seen.jsonl"]) == 0
    whole = load_run("whole.toml")
    assert (whole.backbone.name, whole.train.freeze, whole.train.lora) == ("qwen-vl", ("vision",), None)
    assert main(["init", "lora.toml", "--model", "sees", "--data", "seen.jsonl", "--lora", "4"]) == 0
    adapted = load_run("lora.toml")
    assert adapted.train.lora is not None
    assert (adapted.train.lora.rank, adapted.train.lora.alpha, adapted.train.freeze) == (4, 8.0, ())
    assert adapted.train.lr > whole.train.lr


def test_training_without_a_run_file_writes_one(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["train", "--model", "text", "--data", "pairs.jsonl", "--lora", "4", "--quiet"]
    assert main(given) == 0
    assert capsys.readouterr().out.startswith("run file: runs/pairs.toml\n")
    assert load_run("runs/pairs.toml").train.lora is not None
    assert Path("runs/pairs/model/reward_config.json").exists()
    # The same again has the same file, and is refused for the run that is there.
    assert main(given) == 2
    assert "runs/pairs" in capsys.readouterr().err
    assert main([*given, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train", "give a run file, or --model DIR and --data PATH"),
        ("train --model text", "give a run file, or --model DIR and --data PATH"),
        ("train run.toml --lora 4", "--lora goes without a run file; to change run.toml, use --set"),
        (
            "init --model pairs.jsonl --data pairs.jsonl",
            "pairs.jsonl is no directory of a",
        ),
        (
            "init --model owner/Model-3B --data pairs.jsonl",
            "fetch it first: hf download owner/Model-3B --local-dir Model-3B",
        ),
        ("init run.yaml --model text --data pairs.jsonl", "name it run.toml"),
        ("init --model text --data absent.jsonl", "absent.jsonl"),
        ("init --model text --data pairs.jsonl --lora 0", "the rank of adapters must be at least 1, not 0"),
        ("init --model text --data seen.jsonl", "text reads text alone, and seen.jsonl has images"),
        ("init --model text --data bad.jsonl", "bad.jsonl: 3 of 4 rows can't be used as trl: "),
        ("init taken.toml --model text --data pairs.jsonl", "taken.toml is there already, with another text"),
    ],
)
def test_mistakes_say_what_to_write(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken.toml").write_text("output = 'mine'\n")
    row = {"prompt": "q", "chosen": "a", "rejected": "b"}
    rows = [row, *[{**row, "chosen": number} for number in range(3)]]
    Path("bad.jsonl").write_text("".join(json.dumps(item) + "\n" for item in rows))
    assert main(arguments.split()) == 2
    assert message in capsys.readouterr().err
    assert Path("taken.toml").read_text() == "output = 'mine'\n"
