"""The commands, rows and scripts of the pages for newcomers work as they are written, one after another."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import tiny

from basereward import cli

DOCS = Path(__file__).parents[2] / "docs"
FILES = {
    "quickstart.md": "pairs.jsonl",
    "from-ms-swift.md": "swift.jsonl",
    "from-llama-factory.md": "factory.jsonl",
}
QUICKER = ["--set", "train.max_steps=1"]


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with an image and a model of the documents' name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Qwen2.5-VL-3B-Instruct").symlink_to(tiny_models["qwen2_5_vl"])
    tiny.image().save(tmp_path / "cat.png")
    return tmp_path


@pytest.mark.parametrize("page", FILES)
def test_the_commands_of_a_page_run_on_the_rows_that_it_shows(
    page: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = blocks(page, "json")
    for name in (FILES[page], "held-out.jsonl"):
        (place / name).write_text(row * 4)
    commands = [line for block in blocks(page, "bash") for line in block.splitlines()]
    assert commands
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "basereward"
        if arguments[0] == "serve":  # the README's, which is the same, is run by its test
            continue
        more = QUICKER if arguments[0] == "train" else []
        assert cli.main([*arguments, *more]) == 0, f"{command}: {capsys.readouterr().err}"
    trained = [command for command in commands if command.startswith("basereward train")]
    output = shlex.split(trained[0])[-1]
    assert (place / output / "model" / "head.safetensors").is_file()


def test_the_script_for_users_of_trl_runs(place: Path) -> None:
    (script,) = blocks("from-trl.md", "python")
    rows = [{"prompt": "What is it?", "chosen": "a cat", "rejected": "a dog"}] * 4
    exec(compile(script, "from-trl.md", "exec"), {"rows": rows})
    assert (place / "runs" / "from-trl" / "model" / "head.safetensors").is_file()


@pytest.mark.parametrize("page", ["from-trl.md", "from-ms-swift.md", "from-llama-factory.md"])
def test_settings_that_a_page_names_are_settings(page: str) -> None:
    from basereward.config.run import TrainConfig

    names = re.findall(r"`train\.([a-z_]+)", (DOCS / page).read_text(encoding="utf-8"))
    assert names
    assert not set(names) - set(TrainConfig.__dataclass_fields__)
