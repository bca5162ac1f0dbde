"""Imports the models of a study that trains none, by the commands in the head of its file."""

from __future__ import annotations

import re
from pathlib import Path

from basereward.cli import main


def import_models(path: Path) -> None:
    """Import the models whose directories are not there yet, those that write with few tokens."""
    lines = [line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines()]
    commands = [line.split()[1:] for line in lines if line.startswith("basereward import ")]
    assert commands
    for command in commands:
        if not Path(command[command.index("--output") + 1]).exists():
            short = [re.sub(r"^(max_(?:answer|critique)_tokens)=.*", r"\1=4", part) for part in command]
            assert main(short) == 0, command
