"""docs/architecture.md names files, functions and layers that are there."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TRIPS = re.findall(r"^### (.+?)\n(.+?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL)
STOPS = re.findall(r"^\d+\. `([\w/]+\.py)` `([\w.]+)`", TEXT, re.MULTILINE)


def defined(path: Path) -> set[str]:
    """Return the names of a file's functions and classes, and of the methods as `Class.method`."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (ast.FunctionDef, ast.AsyncFunctionDef)
            names |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, methods)}
    return names


@pytest.mark.parametrize(("file", "name"), STOPS)
def test_a_stop_is_in_its_file(file: str, name: str) -> None:
    assert name in defined(ROOT / "basereward" / file)


def test_a_trip_has_at_most_twelve_stops() -> None:
    counts = {title: len(re.findall(r"^\d+\. ", body, re.MULTILINE)) for title, body in TRIPS}
    assert len(counts) == 3
    assert max(counts.values()) <= 12
    assert sum(counts.values()) == len(STOPS)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:[\w]+/)*\w+\.py|(?:\w+/)+)`", TEXT))))
def test_a_path_is_there(path: str) -> None:
    path = path.removesuffix("NAME.py")
    inside = [place for place in (ROOT, *(ROOT / "basereward").rglob("*/"), ROOT / "basereward")]
    assert any((place / path).exists() for place in inside)


def test_the_picture_has_the_layers_that_the_linter_checks() -> None:
    drawn = [set(re.findall(r"\w+", line)) for line in re.findall(r"^│(.+)│", TEXT, re.MULTILINE)]
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [layers] = [
        contract["layers"]
        for contract in config["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    ]
    private = {"_exports", "_version", "__main__"}
    checked = [set(re.findall(r"\w+", layer)) - private for layer in layers]
    assert drawn == [layer for layer in checked if layer]
