"""Features of responses as they were written, and how much of a margin goes with each of them.

Shapes: P pairs, F features.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from basereward.stats.seeds import PairedDifference, t_quantile, t_tail


def _counted(pattern: str) -> Callable[[str], float]:
    expression = re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    return lambda text: math.log1p(len(expression.findall(text)))


def _repetition(text: str) -> float:
    """Return the share of sequences of three words that stood there before."""
    words = re.findall(r"\w+", text.lower())
    threes = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(threes)) / len(threes) if threes else 0.0


FEATURES: Mapping[str, Callable[[str], float]] = {
    "length": lambda text: math.log(len(text)),
    "repetition": _repetition,
    "lists": _counted(r"^\s*(?:[-*+•]|\d+[.)])\s"),
    "emphasis": _counted(r"\*\*[^*\n]+\*\*|^#{1,6}\s"),
    "hedging": _counted(
        r"\b(?:as far as i (?:can tell|know)|i (?:might|may|could) (?:well )?be wrong|perhaps|maybe|possibly|"
        r"it (?:seems|appears|is possible)|i think|i believe|might be|could be|probably)\b"
    ),
    "refusal": _counted(
        r"\bi(?:'m| am) (?:sorry|unable)|\bi (?:can(?:'|no)t|won't) (?:help|assist|answer|provide|do)|"
        r"\bas an ai\b"
    ),
    "agreement": _counted(
        r"\byou(?:'re| are) (?:\w+ )?right\b|\bgreat question\b|\bgood question\b|\bi (?:\w+ )?agree\b"
    ),
    "confidence": _counted(
        r"\bi(?:'m| am) (?:\w+ )?(?:certain|sure|confident)\b|\bi know\b|\bwithout (?:a )?doubt\b"
    ),
}
"""By the shortcut that each is a sign of: the number of a text; a count is log(1 + count)."""

MIN_SHARE, MIN_PAIRS = 0.05, 20
"""Share and number of pairs in which a feature has to differ, for its slope to be varying."""


@dataclass(frozen=True)
class Slopes:
    """The regression of margins on differences of features.

    Attributes:
        of_feature: The slope of each feature: margin, in the unit that it was given in, for a standard
            deviation more of the feature's difference, with the 95 % interval and p-value.
        too_rare: Features that differ in too few pairs.
        explained: R² of the features beside the label; NaN where nothing was regressed.
    """

    of_feature: Mapping[str, PairedDifference]
    too_rare: tuple[str, ...]
    explained: float


def slopes(
    margin: NDArray[np.float64],  # [P]
    features: Mapping[str, NDArray[np.float64]],  # each [P], of the better response less that of the worse
    group: NDArray[np.int64],  # [P]
) -> Slopes:
    """Regress margins on differences of features and a constant, by least squares.

    The better response stands on the same side of each pair, so that the constant takes what the label
    explains, and a slope is what a feature adds at equal label. Errors are robust to unequal variance and to
    pairs of one group (Liang and Zeger, 1986), t has as many degrees of freedom as groups less one.
    """
    enough = max(MIN_PAIRS, math.ceil(MIN_SHARE * len(margin)))
    varying = {name: column for name, column in features.items() if np.count_nonzero(column) >= enough}
    too_rare = tuple(name for name in features if name not in varying)
    _, member = np.unique(group, return_inverse=True)
    num_groups = int(member.max()) + 1
    scale = {name: float(column.std()) for name, column in varying.items()}
    varying = {name: column for name, column in varying.items() if scale[name] > 0}
    if not varying or num_groups < len(varying) + 3:
        return Slopes({}, (*too_rare, *varying), math.nan)
    design = np.column_stack(
        [np.ones(len(margin)), *(column / scale[name] for name, column in varying.items())]
    )  # [P, F + 1]
    inverse = np.linalg.pinv(design.T @ design)
    coefficients = inverse @ design.T @ margin
    residual = margin - design @ coefficients
    pulls = np.zeros((num_groups, design.shape[1]))
    np.add.at(pulls, member, design * residual[:, None])
    num_pairs, num_columns = design.shape
    small = num_groups / (num_groups - 1) * (num_pairs - 1) / max(1, num_pairs - num_columns)
    errors = np.sqrt(np.clip(np.diag(inverse @ (pulls.T @ pulls) @ inverse) * small, 0, None))
    freedom = num_groups - 1
    fitted = {}
    for name, value, error in zip(varying, coefficients[1:], errors[1:], strict=True):
        half = t_quantile(freedom) * float(error)
        p = t_tail(float(value) / float(error), freedom) if error > 0 else float(value == 0)
        fitted[name] = PairedDifference(float(value), float(value) - half, float(value) + half, p, 1, p)
    around = float(((margin - margin.mean()) ** 2).sum())
    explained = 1 - float((residual**2).sum()) / around if around else math.nan
    return Slopes(fitted, too_rare, explained)
