"""`basereward show`: a component and its options."""

from __future__ import annotations

import re
import textwrap
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from basereward.cli import main, show
from basereward.config import LoraConfig
from basereward.config.reference import TABLES, settings_of

PAGE = Path(__file__).parents[2] / "docs/run-file.md"

MINE = '''
    from typing import Literal
    from basereward import hookimpl

    class Focal:
        """Weigh what is hard.

        The second paragraph isn't shown.

        Args:
            gamma: How much more
                the hard ones count.
            kind: Which kind.
        """

        def __init__(self, *, gamma: float = 2.0, kind: Literal["a", "b"] = "a", model: str) -> None:
            pass

        def forward(self, rewards, targets):
            pass

    class Plain:
        def forward(self, rewards, targets):
            pass

    @hookimpl
    def basereward_losses():
        return {"focal": "mine:Focal", "plain": "mine:Plain"}
    '''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Return the file of a plugin with two losses."""
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(MINE).lstrip())
    return file


def test_component_is_shown_with_a_table_of_its_options(run_cli: Any, mine: Path) -> None:
    done = run_cli("-p", "mine", "show", "loss", "focal")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "loss focal: Weigh what is hard.",
        "",
        "plugin  mine",
        "class   mine:Focal",
        f"file    {mine}:4",
        "",
        "gamma: float = 2.0",
        "    How much more the hard ones count.",
        "kind: 'a' | 'b' = 'a'",
        "    Which kind.",
        "model: str, required",
    ]


def test_component_without_docstring_or_options_is_shown_too(run_cli: Any, mine: Path) -> None:
    done = run_cli("-p", "mine", "show", "loss", "mine/plain")
    assert done.stdout.splitlines()[0] == "loss plain:"
    assert done.stdout.splitlines()[-1] == "no options"


def test_option_of_a_base_class_is_explained_by_its_docstring(run_cli: Any, mine: Path) -> None:
    mine.write_text(mine.read_text().replace("class Plain:", "class Plain(Focal):"))
    done = run_cli("-p", "mine", "show", "loss", "plain")
    assert "gamma: float = 2.0\n    How much more the hard ones count.\n" in done.stdout


def test_path_of_a_dataset_is_among_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "dataset", "trl"]) == 0
    *_, table = capsys.readouterr().out.split("\n\n")
    assert table.splitlines()[0].startswith("path: str")
    assert table.splitlines()[0].endswith(", required")


def test_a_dataset_is_shown_with_the_fields_that_tell_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "dataset", "ms-swift"]) == 0
    _, head, *_ = capsys.readouterr().out.split("\n\n")
    assert head.splitlines()[3:] == [
        "fields  query, response, rejected_response",
        "or      question, response, rejected_response",
        "or      prompt, response, rejected_response",
        "or      instruction, output, rejected_response",
    ]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("dataset", "trl"),
        ("backbone", "qwen-vl"),
        ("head", "mlp"),
        ("loss", "basereward/bradley-terry"),
        ("paradigm", "scalar"),
        ("ensembler", "mean"),
    ],
)
def test_own_components_explain_every_option(
    kind: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", kind, name]) == 0
    *_, table = capsys.readouterr().out.split("\n\n")
    settings = [] if table.strip() == "no options" else re.split(r"\n(?! )", table.strip())
    assert all(re.search(r"\n    .*\.$", setting, re.DOTALL) for setting in settings), table


def test_a_table_of_run_files_is_shown_with_every_setting(run_cli: Any) -> None:
    lines = run_cli("show", "lora").stdout.splitlines()
    names = [line.partition(":")[0] for line in lines if not line.startswith(" ")]
    assert names == [item.name for item in fields(LoraConfig)]
    assert lines[0] == "rank: int = 16"


def test_the_page_of_run_files_is_what_is_shown(run_cli: Any) -> None:
    shown = run_cli("show", "run-file").stdout
    assert PAGE.read_text(encoding="utf-8").endswith(shown), "write it anew from `basereward show run-file`"


def test_a_kind_needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "head"]) == 2
    assert "show head needs the name of a component, or one of the tables run" in capsys.readouterr().err


def test_every_setting_of_a_run_file_is_explained() -> None:
    silent = [(table, item.name) for table in TABLES for item in settings_of(table) if not item.description]
    assert silent == []
    assert tuple(TABLES) == show.TABLES
