"""docs/ensembles.md: what it tells to type works, and its table is that of the ensemblers."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import ensembles
import pytest
import tiny

from basereward import cli
from basereward.data.writing import JSONLWriter
from basereward.plugins import PluginManager, builtin

TEXT = (Path(__file__).parents[2] / "docs/ensembles.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the files that the text names."""
    place = tmp_path_factory.mktemp("place")
    models = ensembles.save(place / "models")
    for name, model in (("qwen", "a"), ("intern", "other")):
        (place / "runs" / name).mkdir(parents=True)
        (models / model).rename(place / "runs" / name / "model")
    for name in ("pairs", "held-out"):
        with JSONLWriter(place / f"{name}.jsonl") as writer:
            for pair in ensembles.pairs(6):
                writer.write(pair)
    return place


def test_the_commands_run_one_after_the_other(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(lines) == 4
    for line in lines:
        name, *arguments = shlex.split(line)
        assert name == "basereward"
        assert cli.main(arguments) == 0, capsys.readouterr().err


def test_the_example_in_python_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (block,) = blocks("python")
    names: dict[str, Any] = {"comparisons": tiny.comparisons()}
    exec(block, names)
    assert names["same"] == names["ensemble"].score(names["comparisons"])


def test_the_table_says_of_every_ensembler_what_it_is() -> None:
    plugins = PluginManager()
    rows = re.findall(r"^\| `([\w-]+)` \| .+ \| (yes|) ?\| (yes|) ?\|$", TEXT, re.MULTILINE)
    said = {name: (learns == "yes", is_free == "yes") for name, learns, is_free in rows}
    classes = {name: plugins.load("ensembler", name) for name in builtin.basereward_ensemblers()}
    assert said == {name: (cls.learns, bool(cls.is_scale_free)) for name, cls in classes.items()}
