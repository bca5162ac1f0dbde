"""Audits of scorers with a planted fault: it is found, and a clean scorer passes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from basereward import Comparison, DataError, audit
from basereward.evaluation.audit.report import save_audit
from basereward.scoring.baselines import baseline_of
from basereward.testing.planted import FAULTS, planted, planted_rows

if TYPE_CHECKING:
    from pathlib import Path

NUM_ROWS = 150
MEASURES = {
    "image out": {"ablations: image out", "ablations: another row's image", "shortcuts: text alone"},
    "prompt out": {"ablations: prompt out"},
    "batch": {"stability: batch"},
    "position": {"shortcuts: position", "stability: order"},
    "calibration": {"calibration: calibration"},
}
STABILITY = {"whitespace", "case", "typos", "re-encoding", "resize", "crop"}


def found(fault: str, seed: int = 0) -> set[str]:
    result = audit(planted(fault, seed), planted_rows(NUM_ROWS, seed), seed=seed)
    return {f"{finding.family}: {finding.name}" for finding in result.flagged}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    family = "stability" if fault in STABILITY else "shortcuts"
    assert MEASURES.get(fault, {f"{family}: {fault}"}) <= found(fault)


def test_a_slope_finds_what_responses_have_of_a_bias() -> None:
    result = audit(planted("hedging", 0), planted_rows(400, 0))
    assert [f"{each.family}: {each.name}" for each in result.flagged] == [
        "shortcuts: hedging",
        "regression: hedging",
    ]


@pytest.mark.parametrize("seed", range(3))
def test_a_clean_scorer_passes(seed: int) -> None:
    assert found("none", seed) == set()


def test_a_report_has_every_finding_and_number(tmp_path: Path) -> None:
    result = audit(planted("hedging", 0), planted_rows(60, 0))
    save_audit(result, tmp_path, {"audit": "planted"})
    report = json.loads((tmp_path / "report.json").read_text())
    assert [finding["name"] for finding in report["findings"] if finding["state"] == "found"] == [
        finding.name for finding in result.flagged
    ]
    text = (tmp_path / "report.md").read_text()
    assert str(result.metrics.accuracy) in text
    assert "pays for hedging" in text
    assert "pays for hedging" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "plots" / "shortcuts.png").is_file()


def test_a_rule_that_pays_for_length_is_told_from_what_it_is() -> None:
    result = audit(baseline_of("longest"), planted_rows(60, 0))
    names = {finding.name for finding in result.flagged if finding.family == "shortcuts"}
    assert "length" in names
    assert result.ablations["image out"].loss.value == 0
    assert result.ablations["image out"].same_order.value == 1


def test_rows_without_an_order_are_listed_and_without_any_it_is_an_error() -> None:
    tied = Comparison("say something", ["yes", "no"], ranks=[0, 0], id="tied")
    with pytest.raises(DataError, match="no row with a better and a worse response; 1 were rejected"):
        audit(baseline_of("longest"), [tied])
    result = audit(baseline_of("longest"), [tied, *planted_rows(30, 0)])
    assert [str(error) for error in result.rejected] == [
        "tied: ranks: all responses are tied; an audit takes a better and a worse one"
    ]
    assert (result.num_rows, result.num_read) == (30, 31)
