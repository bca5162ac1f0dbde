"""Audits of a judge, and of a model in another precision, with a planted fault."""

from __future__ import annotations

import pytest

from basereward import RewardModel, audit
from basereward.evaluation.audit.results import Audit
from basereward.testing.planted import planted, planted_rows
from basereward.testing.planted_models import OFFSET, PlantedParadigm

NUM_ROWS = 100


def audited(paradigm: PlantedParadigm) -> Audit:
    return audit(RewardModel(paradigm, {}), planted_rows(NUM_ROWS, 0))


def flagged(result: Audit) -> set[str]:
    return {f"{finding.family}: {finding.name}" for finding in result.flagged}


def test_a_clean_judge_passes_and_its_rewards_are_no_log_odds() -> None:
    result = audited(PlantedParadigm(planted("none", 0), is_judge=True))
    assert flagged(result) == set()
    assert result.skipped == {
        "calibration": "rewards that compare responses are no log-odds",
        "regression": "it takes 400 rows to find a bias reliably",
    }


def test_a_judge_that_leans_to_the_first_response_is_found() -> None:
    result = audited(PlantedParadigm(planted("none", 0), is_judge=True, lean=1.0))
    assert flagged(result) == {"shortcuts: verdicts"}
    [finding] = result.flagged
    assert finding.claim == "judges for the response shown first"
    # A judge's rewards average both orders, so that the lean moves none of them.
    assert result.stability["order"].largest == 0


@pytest.mark.parametrize("fault", ["hedging", "image out"])
def test_a_shortcut_of_a_judge_is_found(fault: str) -> None:
    result = audited(PlantedParadigm(planted(fault, 0), is_judge=True))
    family = "ablations" if fault == "image out" else "shortcuts"
    assert f"{family}: {fault}" in flagged(result)


def test_rewards_that_bf16_cannot_hold_are_found_and_the_precision_is_put_back() -> None:
    model = RewardModel(PlantedParadigm(planted("none", 0), offset=OFFSET), {})
    result = audit(model, planted_rows(NUM_ROWS, 0))
    assert flagged(result) == {"stability: precision"}
    assert model.precision.name == "fp32"
    # Characters stand for tokens: each tree of a row has its prompt once.
    assert result.once.num_tokens == pytest.approx(
        result.costs["pair alone"].num_tokens / NUM_ROWS * NUM_ROWS
    )
    assert result.times_once == result.total.num_tokens / result.once.num_tokens
