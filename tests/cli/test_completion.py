"""`basereward completion`: a script that completes in bash."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from basereward import cli
from basereward.cli import COMMANDS


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert cli.main(["completion", "bash"]) == 0
    path = tmp_path / "completion.bash"
    path.write_text(capsys.readouterr().out)
    return path


def completed(script: Path, *words: str) -> list[str]:
    """Return what bash completes the last word to."""
    line = " ".join(f"'{word}'" for word in words)
    done = subprocess.run(
        [
            "bash",
            "-c",
            f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _basereward; "
            'printf "%s\\n" "${COMPREPLY[@]}"',
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=script.parent,
    )
    return done.stdout.split()


@pytest.mark.external
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ev"], ["evaluate"]),
        (["plu"], ["plugins"]),
        (["train", "--over"], ["--overwrite"]),
        (["evaluate", "--lim"], ["--limit"]),
        (["data", "insp"], ["inspect"]),
        (["evaluate", "compl"], ["completion.bash"]),
    ],
)
def test_bash_completes_commands_options_and_files(
    script: Path, words: list[str], expected: list[str]
) -> None:
    assert completed(script, "basereward", *words) == expected


def test_the_script_knows_every_command(script: Path) -> None:
    text = script.read_text()
    assert all(f"            {command}) words=" in text for command in COMMANDS)


def test_zsh_takes_it_by_its_own_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("autoload -U +X bashcompinit && bashcompinit\n_basereward() {")
