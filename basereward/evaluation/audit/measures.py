"""The measures of an audit: from the rewards of trials to numbers and findings.

Shapes: K rows that were scored, a pair of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from basereward.evaluation.audit.features import FEATURES, Slopes, slopes
from basereward.evaluation.audit.findings import (
    FLIPS,
    MATERIAL,
    Finding,
    absence,
    presence,
    share_above,
)
from basereward.evaluation.audit.pairs import Pairs
from basereward.evaluation.audit.response_edits import SHORTCUTS
from basereward.evaluation.audit.results import Ablation, Bought, ShortcutFailure, Steadiness
from basereward.evaluation.metrics import PairMetrics
from basereward.evaluation.scored_pairs import unit_scores_of
from basereward.stats.interval import Interval, Z, interval_of
from basereward.stats.seeds import mean_difference

MIN_ROWS = 10
"""Rows below which nothing is said."""

SLOPE_ROWS = 400
"""Rows below which slopes find too few of the biases that are there."""

ECE = 0.05
"""Calibration error from which on it is material."""

CHANGE = 0.05
"""Spreads by which a reward may differ by the batch it was computed in."""

COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

LOOK = {
    "image out": (
        "does not need the image",
        "Compare with an evaluation on rows whose order only the image tells; train with pairs of a wrong "
        "image, or with less weight on pairs that text alone orders (arXiv 2503.03122).",
    ),
    "another row's image": (
        "takes any image for the right one",
        "Train with pairs of a wrong image; check that images and rows of the training data go together.",
    ),
    "prompt out": (
        "does not need the prompt's text",
        "Of no concern where all prompts ask the same; otherwise check the chat template and truncation "
        "(`max_tokens`), and train with responses to other prompts as rejected ones.",
    ),
}
"""The ablations that a model has to lose by, with the claim where it doesn't, and the advice."""


def ablation(pairs: Pairs, name: str) -> Ablation | None:
    """Return what an ablation does; None where fewer than `MIN_ROWS` rows have it."""
    margin = pairs.margin(name)
    is_in = ~np.isnan(margin)
    if is_in.sum() < MIN_ROWS:
        return None
    whole, group = pairs.whole[is_in], pairs.group[is_in]
    before, after = unit_scores_of(whole), unit_scores_of(margin[is_in])
    same = (np.sign(whole) == np.sign(margin[is_in])).astype(np.float64)
    return Ablation(
        interval_of(after, group),
        interval_of(before, group),
        mean_difference(before, after, group),
        interval_of(same, group),
    )


def ablation_findings(ablations: Mapping[str, Ablation]) -> list[Finding]:
    """Return the findings that the model does without what it should look at."""
    return [
        absence("ablations", name, claim, part.loss, part.accuracy.num_pairs, advice)
        for name, (claim, advice) in LOOK.items()
        if (part := ablations.get(name)) is not None
    ]


def shortcut_failure(
    pairs: Pairs, text_margin: NDArray[np.float64], text_model: str
) -> tuple[ShortcutFailure | None, list[Finding]]:
    """Return the accuracy where text alone is right and where it is wrong (arXiv 2503.03122).

    Args:
        pairs: The pairs.
        text_margin: [K] margins of the model of text alone, not-a-number for rows without images.
        text_model: Its name.
    """
    scores = unit_scores_of(pairs.whole)
    parts: list[Interval | None] = []
    for is_in in (text_margin > 0, text_margin < 0):
        enough = is_in.sum() >= MIN_ROWS
        parts.append(interval_of(scores[is_in], pairs.group[is_in]) if enough else None)
    if parts == [None, None]:
        return None, []
    failure = ShortcutFailure(text_model, *parts)
    if failure.wrong is None:
        return failure, []
    finding = share_above(
        "shortcuts",
        "text alone",
        "follows the text where it misleads",
        failure.wrong,
        0.5,
        "Give less weight to training pairs that text alone orders, and add pairs of a wrong image.",
        below=True,
    )
    return failure, [finding]


def side(name: str, which: str) -> str:
    """Return the name of the trial of an edit on the better or the worse response."""
    return f"{name} of the {which}"


def is_turned(row: int, which: str) -> bool:
    """Tell whether a trial of an edit shows the text with the shortcut first: of half of them."""
    return (row + (which == "worse")) % 2 == 1


def bought(pairs: Pairs, name: str, *, is_comparative: bool) -> Bought | None:
    """Return the reward that an edit buys; None where fewer than `MIN_ROWS` rows have it."""
    columns = {}
    for which in ("better", "worse"):
        rewards = pairs.of(side(name, which))
        turned = np.array([is_turned(row, which) for row in pairs.numbers])
        columns[which] = np.where(turned[:, None], rewards[:, ::-1], rewards)  # [K, 2] without, with
    gains = np.stack([column[:, 1] - column[:, 0] for column in columns.values()]) / pairs.spread  # [2, K]
    is_in = ~np.isnan(gains).all(0)
    if is_in.sum() < MIN_ROWS:
        return None
    gain = np.nanmean(gains[:, is_in], 0)
    means = [float(np.nanmean(each)) if not np.isnan(each).all() else math.nan for each in gains]
    without, with_shortcut = columns["worse"].T
    better = pairs.of("whole")[np.arange(len(pairs.numbers)), pairs.is_second]
    is_right = better > without  # False where either is not-a-number
    turned_over = None
    if is_right.any() and not is_comparative:
        lost = (better <= with_shortcut)[is_right].astype(np.float64)
        turned_over = interval_of(lost, pairs.group[is_right])
    return Bought(
        mean_difference(gain, 0.0, pairs.group[is_in]), means[0], means[1], turned_over, int(is_in.sum())
    )


def shortcut_findings(shortcuts: Mapping[str, Bought]) -> list[Finding]:
    """Return the findings that the model pays for a shortcut at equal content."""
    return [
        presence("shortcuts", name, SHORTCUTS[name].pays_for, part.gain, part.num, SHORTCUTS[name].advice)
        for name, part in shortcuts.items()
    ]


def regression(pairs: Pairs) -> tuple[Slopes, list[Finding]]:
    """Return how much of the margins goes with features of the responses, at equal label; nothing of fewer
    than `SLOPE_ROWS` rows.
    """
    if len(pairs.numbers) < SLOPE_ROWS:
        return Slopes({}, (), math.nan), []
    texts = list(pairs.texts())
    features = {
        name: np.array([feature(better) - feature(worse) for better, worse in texts])
        for name, feature in FEATURES.items()
    }
    fitted = slopes(pairs.whole / pairs.spread, features, pairs.group)
    advice = (
        "This may be quality that goes with it, where the edit of the same name finds nothing; where that "
        "finds it too, do as it says."
    )
    return fitted, [
        presence("regression", name, SHORTCUTS[name].pays_for, slope, len(texts), advice)
        for name, slope in fitted.of_feature.items()
    ]


def steadiness(pairs: Pairs, name: str, *, is_reversed: bool = False) -> Steadiness | None:
    """Return what a change does; None where fewer than `MIN_ROWS` rows have it.

    Args:
        pairs: The pairs.
        name: The trial.
        is_reversed: Whether the trial has the responses in the other order.
    """
    before, after = pairs.of("whole"), pairs.of(name)
    if is_reversed:
        after = after[:, ::-1]
    is_in = ~np.isnan(after).any(1) & (before[:, 0] != before[:, 1])
    if is_in.sum() < MIN_ROWS:
        return None
    before, after = before[is_in], after[is_in]
    flipped = np.sign(before[:, 0] - before[:, 1]) != np.sign(after[:, 0] - after[:, 1])
    changes = np.abs(after - before) / pairs.spread
    return Steadiness(
        interval_of(flipped.astype(np.float64), pairs.group[is_in]),
        float(changes.max()),
        float(changes.mean()),
    )


def stability_finding(name: str, change: str, steady: Steadiness, advice: str) -> Finding:
    """Return the finding that a change which means nothing turns orders over."""
    claim = f"turns orders over by {change}"
    return share_above("stability", name, claim, steady.flipped, FLIPS, advice)


def batch_finding(steady: Steadiness) -> Finding:
    """Return the finding that a reward depends on what it is computed with: exact, so that it has no test."""
    return Finding(
        family="stability",
        name="batch",
        claim="depends on the batch",
        value=steady.largest,
        low=math.nan,
        high=math.nan,
        unit="spreads",
        num=steady.flipped.num_pairs,
        p=None,
        adjusted=None,
        is_large=steady.largest > CHANGE,
        is_excluded=steady.largest <= CHANGE,
        advice="Score in fp32, or always with one batch size; a component whose rewards depend on the batch "
        "breaks its contract: run `basereward.testing` on it.",
    )


def position_findings(pairs: Pairs, alone: str, turned: str) -> list[Finding]:
    """Return the finding that the first place is worth something, by each pair in both orders."""
    one, other = pairs.of(alone), pairs.of(turned)
    pay = ((one[:, 0] - one[:, 1]) + (other[:, 0] - other[:, 1])) / 2 / pairs.spread
    is_in = ~np.isnan(pay)
    if is_in.sum() < MIN_ROWS:
        return []
    between = mean_difference(pay[is_in], 0.0, pairs.group[is_in])
    advice = "Draw the order of responses in training, and average the rewards of both orders."
    return [presence("shortcuts", "position", "the first place", between, int(is_in.sum()), advice)]


def verdict_findings(pairs: Pairs) -> list[Finding]:
    """Return the finding that a judge's verdicts are for a place, by pairs asked about in both orders."""
    lean = []
    group = []
    for number, row in enumerate(pairs.numbers):
        votes = pairs.rewards.verdicts.get((row, "whole"), {})
        read = [[vote for vote in votes.get(order, ()) if vote is not None] for order in ((0, 1), (1, 0))]
        if all(read):
            # +1 where both orders prefer the first place, -1 the second, 0 where they agree on a response.
            lean.append(float(np.mean([3 - 2 * np.mean(each) for each in read])))
            group.append(int(pairs.group[number]))
    if len(lean) < MIN_ROWS:
        return []
    between = mean_difference(np.array(lean), 0.0, np.array(group))
    place = "first" if between.value >= 0 else "second"
    return [
        Finding(
            family="shortcuts",
            name="verdicts",
            claim=f"judges for the response shown {place}",
            value=between.value,
            low=between.low,
            high=between.high,
            unit="share",
            num=len(lean),
            p=between.p,
            adjusted=None,
            is_large=abs(between.value) >= MATERIAL / 2,
            is_excluded=between.low > -MATERIAL / 2 and between.high < MATERIAL / 2,
            advice="Keep asking in both orders, draw the order in training, and count a pair whose verdicts "
            "differ by order as undecided.",
        )
    ]


def calibration_finding(pairs: Pairs, metrics: PairMetrics, temperature: float) -> Finding:
    """Return the finding that rewards are no log-odds, by Spiegelhalter's test (1986)."""
    confidence = 1 / (1 + np.exp(-np.abs(pairs.whole)))
    is_right = unit_scores_of(pairs.whole)
    pull = 1 - 2 * confidence
    variance = float((pull**2 * confidence * (1 - confidence)).sum())
    z = float(((is_right - confidence) * pull).sum()) / math.sqrt(variance) if variance > 0 else 0.0
    word = "overconfident" if temperature > 1 else "underconfident"
    return Finding(
        family="calibration",
        name="calibration",
        claim=f"is {word}",
        value=metrics.ece,
        low=math.nan,
        high=math.nan,
        unit="accuracy",
        num=len(confidence),
        p=math.erfc(abs(z) / math.sqrt(2)),
        adjusted=None,
        is_large=metrics.ece > ECE,
        is_excluded=metrics.ece <= ECE,
        advice=f"Divide rewards by {temperature:.3g} before you read them as log-odds; no order changes.",
    )


def confidence_of(pairs: Pairs) -> Interval | None:
    """Return how often a pair in the right order has a larger margin than one in the wrong order: the area
    under the ROC curve, with DeLong's interval (1988); None where either kind is rare.
    """
    size = np.abs(pairs.whole)
    right, wrong = size[pairs.whole > 0], size[pairs.whole < 0]
    if min(len(right), len(wrong)) < MIN_ROWS:
        return None
    wins = (np.sign(right[:, None] - wrong[None, :]) + 1) / 2
    value = float(wins.mean())
    variance = wins.mean(1).var(ddof=1) / len(right) + wins.mean(0).var(ddof=1) / len(wrong)
    half = Z * math.sqrt(float(variance))
    return Interval(value, max(0.0, value - half), min(1.0, value + half), len(size), len(size))


def coverage_of(pairs: Pairs) -> dict[float, Interval]:
    """Return the accuracy of the pairs with the largest margins, by their share."""
    order = np.argsort(-np.abs(pairs.whole), kind="stable")
    scores = unit_scores_of(pairs.whole)[order]
    group = pairs.group[order]
    sizes = {share: math.ceil(share * len(order) - 1e-9) for share in COVERAGES}
    return {share: interval_of(scores[:size], group[:size]) for share, size in sizes.items()}
