"""What commands print fits a terminal of 80 columns, and so does what they print to a pipe."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from basereward import cli
from basereward.cli import COMMANDS
from basereward.hookspecs import KINDS
from basereward.plugins.plugin_manager import manager

WIDTH = 80

DATA_COMMANDS = ["inspect", "stats", "convert", "curate", "dedup", "contamination", "mix"]

LONG = "a-name-that-is-as-long-as-names-of-runs-often-are"


@pytest.fixture(autouse=True)
def a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))


def too_wide(text: str) -> list[str]:
    """Return the lines that are too wide, but for those of one long word, such as a path."""
    lines = text.splitlines()
    return [line for line in lines if len(line.rstrip()) > WIDTH and len(line.split()) > 2]


def subcommands(command: str) -> list[str]:
    import importlib

    parser = argparse.ArgumentParser()
    importlib.import_module(f"basereward.cli.{command.replace('-', '_')}").add_arguments(parser)
    usage = parser.format_usage()
    return (
        ["inspect", "stats", "convert", "curate", "dedup", "contamination", "mix"]
        if "COMMAND" in usage
        else []
    )


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [[command]] if command else [[]]
    asked += [[command, name] for name in subcommands(command)] if command else []
    for words in asked:
        with pytest.raises(SystemExit) as exit_:
            cli.main([*words, "--help"])
        assert exit_.value.code == 0
        assert too_wide(capsys.readouterr().out) == []


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file of rows with images, categories and a long name, in the working directory."""
    monkeypatch.chdir(tmp_path)
    tiny.image(56, 56, 0).save(tmp_path / "0.png")
    path = Path(f"{LONG}.jsonl")
    lines = [
        {
            "prompt": f"what is this? {number}",
            "responses": [tiny.sentence(number, 9), tiny.sentence(number + 1, 2 + number % 9)],
            "ranks": [0, 1],
            "images": ["0.png"],
            "meta": {"category": f"{LONG} {number % 3}"},
        }
        for number in range(12)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


OUTPUTS = {
    "evaluate": "evaluate longest --data ROWS",
    "evaluate a benchmark": "evaluate longest shortest random:7 --benchmark comparisons=ROWS",
    "evaluate with all numbers": "evaluate longest shortest --benchmark comparisons=ROWS --published",
    "evaluate --compare": "evaluate --compare longest shortest --data ROWS",
    "score": "score longest --prompt p --response WORDS --response b",
    "best-of-n": "best-of-n longest ROWS --gold random --report report",
    "rank": "rank longest ROWS --output ranked.jsonl",
    "filter": "filter longest ROWS --output filtered.jsonl",
    "audit": "audit longest --data ROWS",
    "data inspect": "data inspect ROWS",
    "data curate": "data curate ROWS --step drop-identical --step length-bias",
    "plugins": "plugins",
    "recipes": "recipes",
    "doctor": "doctor",
    "init": "init --model MODEL --data ROWS --output new.toml",
    "plan": "plan run.toml --gpu h100",
    "train": "train run.toml",
    **{f"show {kind}": f"show {kind}" for kind in ("train", "data", "lora", "run")},
    **{f"show a {kind}": f"show {kind} NAME" for kind in KINDS},
}


LOUD = ("plugins", "recipes", "doctor", "init", "plan", "show")
"""Commands without --quiet."""


@pytest.mark.parametrize("name", OUTPUTS)
def test_output_fits(
    name: str, rows: Path, tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_models["qwen2_5_vl"]
    *_, kind = name.split()
    first = manager().names(kind)[0] if kind in KINDS and name.startswith("show a ") else ""
    values = {"ROWS": str(rows), "WORDS": "word " * 40, "NAME": first, "MODEL": str(model)}
    words = [_filled(word, values) for word in OUTPUTS[name].split()]
    if words[0] in ("train", "plan"):
        backbone = {"train": '{ name = "tiny" }', "plan": f'{{ name = "qwen-vl", model = "{model}" }}'}
        Path("run.toml").write_text(
            f'output = "{LONG}"\nbackbone = {backbone[words[0]]}\ntrain = {{ max_steps = 1 }}\n'
            f'[data]\ntrain = [{{ name = "basereward", path = "{rows}" }}]\n'
            f'eval = [{{ name = "basereward", path = "{rows}" }}]\n'
        )
    is_loud = words[0] in LOUD or words[:2] == ["score", "longest"]
    quiet = [] if is_loud else ["--quiet"]
    assert cli.main([*words, *quiet]) == 0
    assert too_wide(capsys.readouterr().out) == []


def _filled(word: str, values: dict[str, Any]) -> str:
    for name, value in values.items():
        word = word.replace(name, str(value))
    return word
