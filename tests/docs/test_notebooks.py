"""The notebooks of docs/: their cells run from the first to the last, and hold no outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs").glob("*.ipynb"))

SCRIPT = """
import ast, json, sys

namespace = {}
for number, cell in enumerate(json.load(sys.stdin)):
    tree = ast.parse(cell)
    is_shown = bool(tree.body) and isinstance(tree.body[-1], ast.Expr)
    last = ast.Expression(tree.body.pop().value) if is_shown else None
    exec(compile(tree, f"cell {number}", "exec"), namespace)
    if last is not None:
        value = eval(compile(last, f"cell {number}", "eval"), namespace)
        print(f"cell {number}: {type(value).__module__}.{type(value).__name__}")
print(namespace["evaluation"].accuracy.value)
"""
"""Runs cells as a notebook does, and prints the type of the value that each shows."""


def cells(notebook: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return found


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_kept(notebook: Path) -> None:
    code = [cell for cell in cells(notebook) if cell["cell_type"] == "code"]
    assert code
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"]] == []


@pytest.mark.external
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_run_in_order(notebook: Path, tmp_path: Path) -> None:
    sources = [
        "".join(line for line in cell["source"] if not line.startswith("%"))  # magics are of IPython alone
        for cell in cells(notebook)
        if cell["cell_type"] == "code"
    ]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        input=json.dumps(sources),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    *shown, accuracy = done.stdout.splitlines()
    assert sum(line.endswith("matplotlib.figure.Figure") for line in shown) == 3
    # A tenth of the pairs are turned around: a model that has learned the rule is right about 0.9 of 300,
    # within four standard errors, 4 sqrt(0.9 * 0.1 / 300) = 0.07.
    assert abs(float(accuracy) - 0.9) < 0.07
