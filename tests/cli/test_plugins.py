"""`basereward plugins`: the listing and the check."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from basereward import __version__

if TYPE_CHECKING:
    from pathlib import Path

MINE = """
    from basereward import hookimpl

    __version__ = "0.3"

    @hookimpl
    def basereward_losses():
        return {"hinge": "mine_parts:Hinge", "lost": "mine_parts:Lost", "bare": "mine_parts:Bare"}

    @hookimpl
    def basereward_log(record, run_dir):
        pass
    """
PARTS = """
    class Hinge:
        def __init__(self, *, margin: float = 1.0) -> None:
            pass

        def forward(self, rewards, targets):
            pass

    class Bare:
        def __init__(self, *, margin=1.0) -> None:
            pass

        def forward(self, rewards, targets):
            pass
    """
LOST = (
    "loss 'lost' of plugin 'mine' (mine_parts:Lost) failed to load: "
    "AttributeError: module 'mine_parts' has no attribute 'Lost'"
)
BARE = "mine_parts:Bare: option 'margin' has no type annotation"


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """Return the directory of a plugin that works in part and one that doesn't."""
    (tmp_path / "mine.py").write_text(textwrap.dedent(MINE))
    (tmp_path / "mine_parts.py").write_text(textwrap.dedent(PARTS))
    (tmp_path / "bad.py").write_text("import no_such_module\n")
    return tmp_path


def test_listing_says_what_each_plugin_provides(run_cli: Any, modules: Path) -> None:
    done = run_cli("-p", "mine", "-p", "bad", "plugins")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"basereward {__version__}: loaded"
    # However wide the columns are that the longest name makes.
    own = [" ".join(line.split()) for line in lines]
    assert "head mlp basereward.heads:MLP" in own
    hinge = "loss hinge basereward.losses:Hinge"
    assert f"{hinge} (several plugins have it: write basereward/hinge)" in own
    assert lines[lines.index("mine 0.3: loaded") :] == [
        "mine 0.3: loaded",
        "  loss       hinge  mine_parts:Hinge  (several plugins have it: write mine/hinge)",
        "  loss       lost   mine_parts:Lost",
        "  loss       bare   mine_parts:Bare",
        "  event      basereward_log",
        "bad: did not load: ModuleNotFoundError: No module named 'no_such_module'",
    ]


def test_check_imports_everything_and_fails_if_anything_does(run_cli: Any, modules: Path) -> None:
    done = run_cli("-p", "mine", "-p", "bad", "plugins", "--check", "--json")
    assert done.returncode == 1
    entries = {entry["name"]: entry for entry in json.loads(done.stdout)["plugins"]}
    assert [item["error"] for item in entries["basereward"]["components"] if item["error"]] == []
    assert entries["mine"] == {
        "name": "mine",
        "version": "0.3",
        "distribution": "",
        "target": "mine",
        "status": "loaded",
        "error": None,
        "hooks": ["basereward_losses", "basereward_log"],
        "components": [
            {"kind": "loss", "name": "hinge", "target": "mine_parts:Hinge", "error": None},
            {"kind": "loss", "name": "lost", "target": "mine_parts:Lost", "error": LOST},
            {"kind": "loss", "name": "bare", "target": "mine_parts:Bare", "error": BARE},
        ],
    }
    assert (entries["bad"]["status"], entries["bad"]["error"]) == (
        "failed",
        "ModuleNotFoundError: No module named 'no_such_module'",
    )
    # Whoever mends a plugin needs the place, not only the last line.
    assert f'File "{modules / "bad.py"}", line 1' in done.stderr


def test_check_passes_where_everything_works(run_cli: Any) -> None:
    done = run_cli("plugins", "--check", BASEREWARD_DISABLE_PLUGINS="*")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" checked, 0 failed")


def test_disabled_module_is_listed_as_such(run_cli: Any, modules: Path) -> None:
    done = run_cli("-p", "mine", "plugins", BASEREWARD_DISABLE_PLUGINS="mine")
    assert "mine: disabled by BASEREWARD_DISABLE_PLUGINS" in done.stdout.splitlines()
    assert done.stderr == (
        "basereward: warning: plugin 'mine' was asked for, but BASEREWARD_DISABLE_PLUGINS leaves it out\n"
    )
