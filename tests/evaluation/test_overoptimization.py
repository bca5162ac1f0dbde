"""Overoptimization: the best of n against its definition, curves whose fall is known, and the command."""

from __future__ import annotations

import json
import math
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basereward import Comparison, DataError, Ensemble, RewardModel, cli
from basereward.config import Component
from basereward.evaluation.overoptimization import best_of_n_weights, kl_of, overoptimization
from basereward.protocols import Scorer
from basereward.scoring.baselines import Baseline, baseline_of
from basereward.scoring.scorer import EnsembleRewards

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

NUM = 8


def candidates(num_prompts: int) -> list[Comparison]:
    """Return prompts whose candidates are 1, 2, ... 8 letters long."""
    return [Comparison(f"prompt {row}", ["a" * (at + 1) for at in range(NUM)]) for row in range(num_prompts)]


def hill(comparison: Comparison, number: int) -> float:
    """Return a reward that rises to five letters and falls from there, and differs by prompt."""
    length = len(comparison.responses[number])
    return -abs(length - 5.0) + 0.1 * (sum(map(ord, comparison.prompt[0].text)) % 7) * length % 0.7


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.data())
def test_the_weights_are_those_of_all_draws(values: list[int], data: st.DataObject) -> None:
    rewards = np.array(values, dtype=np.float64)
    num = data.draw(st.integers(1, len(values)))
    expected = np.zeros(len(values))
    draws = list(combinations(range(len(values)), num))
    for draw in draws:
        best = [at for at in draw if rewards[at] == rewards[list(draw)].max()]
        for at in best:
            expected[at] += 1 / len(best) / len(draws)
    # Equal rewards share what they have together: each of them, by symmetry, as much as any other.
    weights = best_of_n_weights(rewards, num)
    # Fractions of at most C(6, 3) = 20 terms.
    assert weights == pytest.approx(expected, abs=20 * np.finfo(float).eps)
    assert math.fsum(weights) == pytest.approx(1.0, abs=20 * np.finfo(float).eps)


def test_the_divergence_of_the_best_of_n() -> None:
    assert kl_of(1) == 0
    assert kl_of(4) == pytest.approx(1.3862944 - 0.75)  # ln 4 - 3/4


def test_a_proxy_that_is_pushed_past_the_gold_reward_falls() -> None:
    result = overoptimization(baseline_of("longest"), Baseline(hill), candidates(40))
    curve = result.curves["model"]
    assert result.sizes == [1, 2, 4, 8]
    assert curve.proxy[1].value == pytest.approx(0)
    assert curve.proxy[2].value < curve.proxy[4].value < curve.proxy[8].value
    assert curve.peak in (2, 4)
    assert curve.fall is not None
    assert curve.fall.value < 0
    assert curve.fall.is_significant


def test_a_proxy_that_is_the_gold_reward_never_falls() -> None:
    gold = Baseline(hill)
    result = overoptimization(gold, gold, candidates(20))
    curve = result.curves["model"]
    assert curve.fall is None
    assert curve.gold == curve.proxy


def test_rows_with_too_few_candidates_are_left_out() -> None:
    few = Comparison("short", ["a", "bb"], id="few")
    result = overoptimization(baseline_of("longest"), Baseline(hill), [few, *candidates(5)])
    assert result.num_prompts == 5
    assert [error.reason for error in result.rejected] == ["2 candidates are fewer than 8, the largest n"]
    with pytest.raises(DataError, match="gives all candidates of each prompt one reward"):
        overoptimization(Baseline(lambda comparison, number: 1.0), Baseline(hill), candidates(5))


def test_an_ensemble_has_a_curve_for_each_member_and_each_way_to_join_them(tmp_path: Path) -> None:
    for name in ("one", "other"):
        RewardModel.build(backbone=Component("tiny", {})).save(tmp_path / name)
    ensemble = Ensemble.of([tmp_path / "one", tmp_path / "other"], Component("mean", {}))
    result = overoptimization(ensemble, baseline_of("longest"), candidates(4), max_num=4)
    joined = {"mean", "min", "mean-minus-std"}
    assert result.curves.keys() == {"model", "member one", "member other", *joined}
    assert result.against_members.keys() == joined
    members = [result.curves[f"member {name}"].gold[4].value for name in ("one", "other")]
    for name in joined:
        difference = result.curves[name].gold[4].value - sum(members) / 2
        assert result.against_members[name].value == pytest.approx(difference)


class Lengths(Scorer[list[float]]):
    """An ensemble of members that choose the response nearest to lengths of their own."""

    def __init__(self, **favourites: float) -> None:
        self.favourites = favourites

    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8
    ) -> Iterator[tuple[Comparison, list[float] | DataError]]:
        """Yield each comparison with its rewards."""
        for comparison in comparisons:
            members = {
                name: [-abs(len(text) - float(length)) for text in comparison.responses]
                for name, length in self.favourites.items()
            }
            rewards = [sum(each) for each in zip(*members.values(), strict=True)]
            yield comparison, EnsembleRewards(rewards, members, [])


def test_an_ensemble_that_is_right_where_its_members_err_peaks_later() -> None:
    # Gold is highest at five letters. One member goes to eight, one to two; their minimum is highest at five,
    # where min(-|5 - 8|, -|5 - 2|) = -3.
    result = overoptimization(Lengths(long=8, short=2), Baseline(hill), candidates(40))
    delay = result.delays["min"]
    peaks = [kl_of(result.curves[f"member {name}"].peak) for name in ("long", "short")]
    assert result.curves["min"].peak == NUM
    assert delay.value == pytest.approx(kl_of(NUM) - sum(peaks) / 2)
    assert 0 < delay.low <= delay.value <= delay.high
    saved = result.to_dict()["delays"]["min"]
    assert saved == {"value": delay.value, "low": delay.low, "high": delay.high}


def test_the_command_leaves_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "samples.jsonl"
    rows = (comparison.to_dict() for comparison in candidates(12))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = tmp_path / "report"
    arguments = ["best-of-n", "random", str(path), "--gold", "longest", "--quiet"]
    assert cli.main([*arguments, "--report", str(report)]) == 0
    shown = capsys.readouterr()
    saved = json.loads((report / "report.json").read_text())
    assert (saved["proxy"], saved["gold"], saved["num_prompts"]) == ("random", "longest", 12)
    assert f"{saved['curves']['model']['gold']['8']['value']:+.3f}" in shown.out
    assert {path.name for path in report.iterdir()} >= {"report.md", "report.html", "plots"}
    assert cli.main([*arguments, "--output", str(tmp_path / "best.jsonl")]) == 2
    assert "--output does not go with --gold" in capsys.readouterr().err
    assert cli.main(["best-of-n", "random", str(path)]) == 2
    assert "give --output FILE, or --gold MODEL" in capsys.readouterr().err


def test_the_rows_own_ratings_are_a_gold_reward(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rated.jsonl"
    rated = [comparison.replace(ratings=range(NUM, 0, -1)) for comparison in candidates(4)]
    unrated = candidates(1)
    path.write_text("".join(json.dumps(row.to_dict()) + "\n" for row in (*rated, *unrated)))
    assert cli.main(["best-of-n", "longest", str(path), "--gold", "ratings", "--quiet"]) == 0
    shown = capsys.readouterr()
    # Of eight ratings in a row the lowest is (1 - 4.5) / sqrt(6) = -1.429 spreads, as their variance is 6.
    assert "-1.429 (-1.429 to -1.429)" in shown.out
    assert "4 prompts, 1 left out" in shown.out
    assert "has neither ratings nor ranks" in shown.err
