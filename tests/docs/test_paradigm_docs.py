"""docs/paradigms.md shows the code as it is."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import tiny

import basereward.paradigms
from basereward.comparison import Comparison
from basereward.config import Component
from basereward.hookspecs import KINDS
from basereward.plugins import PluginManager
from basereward.scoring.reward_model import RewardModel

TEXT = (Path(__file__).parents[2] / "docs" / "paradigms.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.add_language_head(tiny.save_causal_lm(tmp_path_factory.mktemp("docs") / "model"))


@pytest.mark.parametrize("block", blocks("toml"))
def test_a_run_file_may_say_so(block: str, model: Path) -> None:
    table = tomllib.loads(block)["paradigm"]
    paradigm = Component(table.pop("name"), table)
    built = RewardModel.build(backbone=Component("causal-lm", {"model": str(model)}), paradigm=paradigm)
    assert isinstance(built.paradigm, PluginManager().load("paradigm", paradigm.name))
    assert built.components["paradigm"]["options"].items() >= table.items()


@pytest.mark.parametrize("block", blocks("json"))
def test_a_row_may_say_so(block: str, model: Path) -> None:
    row = Comparison.from_dict(json.loads(block))
    [key] = row.meta or ["ratings"]
    paradigm = {
        "ratings": Component("steps", {}),
        "judgements": Component("generative", {"template": "reasoned"}),
        "critiques": Component("critic", {}),
        "rubric": Component("pointwise", {"template": "rubric"}),
    }[key]
    built = RewardModel.build(
        backbone=Component("causal-lm", {"model": str(model)}),
        loss=Component("binary-cross-entropy" if key == "ratings" else "bradley-terry", {}),
        paradigm=paradigm,
    )
    assert built.paradigm.train().loss([row]).loss.isfinite()


def test_every_paradigm_and_every_statistic_is_described(model: Path) -> None:
    assert "paradigm" in KINDS
    names = {item.name for item in PluginManager().provided("paradigm")}
    assert names == {"scalar", "steps", "joint", "critic", "generative", "pointwise", "listwise"}
    assert not [name for name in names if f"`{name}`" not in TEXT]
    for name in ("generative", "pointwise", "listwise"):
        judge = RewardModel.build(
            backbone=Component("causal-lm", {"model": str(model)}), paradigm=Component(name, {})
        )
        judge.score([Comparison("p", ["a", "b"])])
        assert judge.statistics
        assert not [each for each in judge.statistics if f"`{each}`" not in TEXT]


@pytest.mark.parametrize("block", blocks("python"))
def test_python_says_what_happens(block: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    assert model.name == "model"
    exec(block, {})


def test_every_template_is_named() -> None:
    directory = Path(basereward.paradigms.__file__).parent / "judge_templates"
    names = [path.stem for path in directory.glob("*.toml")]
    assert "choice" in names
    assert not [name for name in names if f"`{name}`" not in TEXT]
