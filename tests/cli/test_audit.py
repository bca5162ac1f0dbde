"""`basereward audit`, with tiny random models of each kind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import tiny

from basereward import Ensemble, RewardModel, audit, cli
from basereward.config import Component
from basereward.data import read_comparisons
from basereward.evaluation.audit import measures

if TYPE_CHECKING:
    from pathlib import Path

NUM_ROWS = 12


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = []
    for number in range(NUM_ROWS):
        tiny.image(56, 56, number).save(tmp_path / f"{number}.png")
        responses = [tiny.sentence(number * 10 + offset, 2 + offset) for offset in range(3)]
        prompt = f"what is in image {number}"
        rows.append(
            {"prompt": prompt, "images": [f"{number}.png"], "responses": responses, "ratings": [3, 1, 1]}
        )
    path = tmp_path / "pets.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "broken\n")
    return path


def saved(path: Path, paradigm: str, **options: Any) -> Path:
    RewardModel.build(backbone=Component("tiny", {}), paradigm=Component(paradigm, options)).save(path)
    return path


@pytest.mark.usefixtures("drawn_figures")
def test_the_table_the_json_and_the_report_say_the_same(
    model_dir: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report"
    arguments = ["audit", str(model_dir), "--data", str(data), "--quiet", "--output", str(output)]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr()
    report = json.loads((output / "report.json").read_text())
    assert report["audit"] == str(model_dir)
    assert report["num_rows"] == NUM_ROWS
    assert report["num_rejected"] == 1
    assert report["skipped"] == {
        "case": "fewer than 10 rows have it",  # the words are in lower case
        "regression": "it takes 400 rows to find a bias reliably",
    }
    assert {"report.md", "report.html", "rejected.jsonl", "plots"} <= {path.name for path in output.iterdir()}
    assert "image out" in shown.out
    assert "The audit takes" in shown.out
    assert "1 row could not be used" in shown.err
    assert cli.main(["audit", str(model_dir), "--data", str(data), "--quiet", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    del again["seconds"], report["seconds"]
    assert again == report


def test_edits_in_one_tree_have_the_rewards_of_edits_alone_and_cost_less(model_dir: Path, data: Path) -> None:
    model = RewardModel.load(model_dir)
    rows = list(read_comparisons(data))
    shared, apart = audit(model, rows), audit(model, rows, shares=False)
    for name, bought in shared.shortcuts.items():
        # fp32: 2^-23 times some hundreds of roundings, over a spread of about 0.1.
        assert bought.gain.value == pytest.approx(apart.shortcuts[name].gain.value, abs=1e-3)
    part = "pairs and their edits"
    assert shared.costs[part].num_forests == NUM_ROWS
    assert shared.costs[part].num_tokens < apart.costs[part].num_tokens / 2


@pytest.mark.parametrize(
    ("paradigm", "options"),
    [("generative", {}), ("critic", {"max_critique_tokens": 2})],
)
def test_judges_and_critics_are_audited(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paradigm: str, options: dict[str, Any]
) -> None:
    model = RewardModel.load(saved(tmp_path / "model", paradigm, **options))
    # Few rows, since the tiny backbone's attention is quadratic in all edits of one.
    monkeypatch.setattr(measures, "MIN_ROWS", 3)
    result = audit(model, list(read_comparisons(data))[:3])
    assert result.num_rows == 3
    assert set(result.stability) >= {"whitespace", "batch", "order", "precision"}
    assert len(result.shortcuts) == 9
    has_verdicts = any(finding.name == "verdicts" for finding in result.findings)
    assert has_verdicts == (paradigm == "generative")


def test_an_ensemble_is_audited(data: Path, tmp_path: Path) -> None:
    members = {name: saved(tmp_path / name, "scalar") for name in ("one", "other")}
    ensemble = Ensemble.of(members, Component("rank-mean", {}))
    assert ensemble.is_comparative
    result = audit(ensemble, read_comparisons(data))
    # Of two responses one has the rank 1 and the other 0, or both members disagree and both have 0.5.
    assert result.num_rows == NUM_ROWS


def test_a_model_in_the_place_of_the_output_is_refused(
    model_dir: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["audit", str(model_dir), "--data", str(data), "--output", str(model_dir)]) == 2
    assert "is the directory of a model" in capsys.readouterr().err
