"""The statistics of an audit against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from basereward.evaluation.audit.features import slopes
from basereward.evaluation.audit.findings import LOSS, absence, corrected, presence, share_above
from basereward.evaluation.audit.pairs import sampled
from basereward.stats.interval import interval_of
from basereward.stats.seeds import mean_difference
from basereward.testing.planted import planted_rows

ALONE = np.arange(200)


def draws(seed: int, num: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=num)


def test_slopes_are_those_of_least_squares_and_errors_those_of_the_sandwich() -> None:
    feature, margin = draws(0), draws(1)
    result = slopes(margin, {"length": feature, "rare": np.zeros(200)}, ALONE)
    design = np.column_stack([np.ones(200), feature / feature.std()])
    expected, *_ = np.linalg.lstsq(design, margin, rcond=None)
    residual = margin - design @ expected
    bread = np.linalg.inv(design.T @ design)
    meat = sum(np.outer(row, row) * each**2 for row, each in zip(design, residual, strict=True))
    # 200 groups of one pair: 200 / 199 for groups, 199 / 198 for the two columns.
    error = math.sqrt((bread @ meat @ bread)[1, 1] * 200 / 199 * 199 / 198)
    slope = result.of_feature["length"]
    assert slope.value == pytest.approx(expected[1])
    assert (slope.high - slope.low) / 2 == pytest.approx(1.971957 * error, rel=1e-6)  # t of 199 degrees
    assert result.too_rare == ("rare",)
    assert result.explained == pytest.approx(1 - (residual**2).sum() / ((margin - margin.mean()) ** 2).sum())


def test_nothing_lost_is_an_absence_and_half_of_it_lost_is_none() -> None:
    whole = np.tile([1.0, 1.0, 1.0, 0.0], 50)
    same = absence("ablations", "a", "claim", mean_difference(whole, whole, ALONE), 200, "")
    half = absence("ablations", "b", "claim", mean_difference(whole, whole / 2, ALONE), 200, "")
    assert (same.p, same.is_large, same.is_excluded) == (0.0, True, False)
    # Half of 0.75 is lost, with a standard error of sqrt(0.75 * 0.25 / 4 / 199) = 0.015.
    assert half.value == pytest.approx(0.375)
    assert half.p == pytest.approx(1.0)
    assert half.state == "clear"
    assert same.value < LOSS


def test_a_share_is_tested_by_its_score() -> None:
    flips = np.zeros(200)
    flips[:20] = 1
    finding = share_above("stability", "case", "claim", interval_of(flips, ALONE), 0.05, "")
    # The effective number of K = 200 pairs is K - 1, and (0.1 - 0.05) / sqrt(0.05 * 0.95 / 199) = 3.236,
    # above which the normal distribution has 0.000605.
    assert finding.p == pytest.approx(0.000605, abs=1e-6)
    assert finding.state == "undecided"  # before its correction no finding is found
    assert corrected([finding])[0].state == "found"


def test_p_values_are_corrected_over_all_findings_and_exact_ones_are_left() -> None:
    gains = [0.3 + draws(seed) / 10 for seed in range(3)]
    findings = [
        presence("shortcuts", str(at), "length", mean_difference(gain, 0.0, ALONE), 200, "")
        for at, gain in enumerate(gains)
    ]
    by_hand = corrected(findings)
    smallest = min(finding.p for finding in findings if finding.p is not None)
    assert min(finding.adjusted for finding in by_hand if finding.adjusted is not None) == pytest.approx(
        3 * smallest
    )
    assert {finding.state for finding in by_hand} == {"found"}
    assert by_hand[0].claim == "pays for length"


def test_rows_are_drawn_by_seed_and_keep_their_order() -> None:
    rows = planted_rows(30, 0)
    first, rejected, num_read = sampled(rows, max_rows=10, seed=1)
    assert (len(first), rejected, num_read) == (10, [], 30)
    places = [rows.index(row.replace(meta={})) for row in first]
    assert places == sorted(places)
    assert [row.id for row in sampled(rows, max_rows=10, seed=1)[0]] == [row.id for row in first]
    assert [row.id for row in sampled(rows, max_rows=10, seed=2)[0]] != [row.id for row in first]
