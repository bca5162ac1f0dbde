"""docs/study.md and docs/trust.md show what the kept results give, and the example is a study."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from basereward.study import load_study

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
TRUST = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def studies() -> ModuleType:
    """Return the script that writes the tables."""
    spec = importlib.util.spec_from_file_location("studies", ROOT / "benchmarks" / "studies.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_kept_results(studies: ModuleType) -> None:
    assert studies.names()
    for name in studies.names():
        assert studies.markdown_tables(*studies.stored(name)) in TEXT + TRUST
        for column in studies.stored(name)[0].columns:
            image = f"{name}-{column.replace(' ', '-')}.png"
            assert (ROOT / "docs" / "images" / "study" / image).is_file()


def test_the_example_is_a_study(tmp_path: Path) -> None:
    [example] = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)
    path = tmp_path / "study.toml"
    (tmp_path / "my-run.toml").write_text("", encoding="utf-8")
    path.write_text(example.replace("../my-run.toml", "my-run.toml"), encoding="utf-8")
    assert [cell.name for cell in load_study(path).cells] == ["1, none", "2, none", "2, silu"]
