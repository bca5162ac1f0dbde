"""The tables of docs/measurements.md are those of the results kept, of every machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from basereward.hardware import processor

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module `benchmarks/tables.py`."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    for name in ("machines", "tables"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import tables

    yield tables
    for name in ("machines", "tables"):
        sys.modules.pop(name, None)


def test_the_document_has_the_tables_of_the_results_kept(tables: Any) -> None:
    text = tables.DOCUMENT.read_text(encoding="utf-8")
    for name in tables.TABLES:
        assert tables.written(name, text) == text, f"run `python benchmarks/tables.py`: {name} is old"


def test_a_new_machine_gets_tables_beside_the_others(
    tables: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, document = tmp_path / "results", tmp_path / "measurements.md"
    shutil.copytree(ROOT / "benchmarks" / "results" / "amx", results / "amx")
    shutil.copy(tables.DOCUMENT, document)
    monkeypatch.setattr(processor, "machine_name", lambda: "zen9")
    for name in ("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    report = json.loads((results / "amx" / "serving.json").read_text(encoding="utf-8"))
    report["concurrent"] = report["concurrent"][:1]
    report["concurrent"][0]["requests_a_second"] = 987.6
    path = tables.machines.keep("serving", report, results)
    assert path == results / "zen9" / "serving.json"
    assert "load_average" in json.loads(path.read_text(encoding="utf-8"))
    facts = json.loads((path.parent / "machine.json").read_text(encoding="utf-8"))
    assert facts["title"].endswith(f"{torch.get_num_threads()} threads, ONEDNN_MAX_CPU_ISA=AVX2")
    # A title that was edited stays.
    facts["title"] = "Nine cores"
    (path.parent / "machine.json").write_text(json.dumps(facts), encoding="utf-8")
    tables.machines.keep("serving", report, results)

    assert tables.write(["serving"], document, results) == ["serving"]
    text = document.read_text(encoding="utf-8").partition("<!-- measured serving: begin -->")[2]
    assert text.index("`amx`: Intel") < text.index("`zen9`: Nine cores") < text.index("| 987.6 |")
    assert tables.write(["serving"], document, results) == []


def test_marks_that_are_missing_are_an_error(tables: Any) -> None:
    with pytest.raises(ValueError, match="there is no <!-- measured ops: begin -->"):
        tables.written("ops", "# A document")


@pytest.mark.external
def test_the_table_of_recipes_is_that_of_its_results() -> None:
    results = ROOT / "benchmarks" / "results" / "recipes.json"
    command = [sys.executable, ROOT / "benchmarks" / "recipes.py", "--table", results]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert done.stdout.strip() in text, f"write into docs/datasets.md what this prints: {command}"
