"""Ensemblers: the rewards of several models to one reward a response.

arXiv 2509.16127, section 4.7 and Table 7, compares `mean`, `accuracy-weighted` and `confidence-weighted`; the
plain mean won.

Shapes: M members, N responses, n responses of one comparison, C comparisons, P pairs.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.losses import Targets
from basereward.protocols import Ensembler

NEWTON_STEPS = 100


class Mean(Ensembler):
    """The mean of the members' rewards; a member with larger rewards counts for more."""

    def __call__(self, members: Tensor, comparisons: Sequence[Comparison]) -> Tensor:  # [M, N] -> [N]
        """Return the mean reward [N] in the members' type."""
        # In fp64, so that rounding doesn't make the result depend on the order of members.
        return checked(members).mean(0).to(members.dtype)


class Median(Ensembler):
    """The middle of the members' rewards, which a single wild member doesn't move.

    Between the two in the middle where there are two.
    """

    def __call__(self, members: Tensor, comparisons: Sequence[Comparison]) -> Tensor:  # [M, N] -> [N]
        """Return the median [N] in the members' type."""
        return checked(members).quantile(0.5, dim=0).to(members.dtype)


class Min(Ensembler):
    """The lowest of the members' rewards: what all of them grant.

    Worst-case optimization of arXiv 2310.02743. It supposes rewards with one zero: a member that gives all
    responses less than the others do decides alone.
    """

    def __call__(self, members: Tensor, comparisons: Sequence[Comparison]) -> Tensor:  # [M, N] -> [N]
        """Return the lowest reward [N] in the members' type."""
        return checked(members).amin(0).to(members.dtype)


class MeanMinusStd(Ensembler):
    """The mean of the members' rewards less a penalty on how far they are apart.

    As uncertainty-weighted optimization of arXiv 2310.02743, with the standard deviation for the variance, so
    that the penalty is of the rewards' own unit.

    Args:
        coefficient: How many standard deviations over the members are subtracted, >= 0.
    """

    def __init__(self, *, coefficient: float = 1.0) -> None:
        if not 0 <= coefficient < float("inf"):
            raise ValueError(f"coefficient is a finite number >= 0, not {coefficient}")
        self.coefficient = coefficient

    def __call__(self, members: Tensor, comparisons: Sequence[Comparison]) -> Tensor:  # [M, N] -> [N]
        """Return the penalized mean [N] in the members' type."""
        values = checked(members)
        penalty = self.coefficient * values.std(0, correction=0)
        return (values.mean(0) - penalty).to(members.dtype)


class RankMean(Ensembler):
    """The mean of the ranks that the members give a response within its comparison, whatever their scales.

    A rank is the share of the comparison's other responses that have a lower reward, equal ones counting
    half: 0 is the worst, 1 the best. A response alone has no rank.
    """

    is_scale_free = True
    is_comparative = True
    unit = "rank"
    reason_for_nan = "rank-mean compares responses; there is only one"

    def __call__(self, members: Tensor, comparisons: Sequence[Comparison]) -> Tensor:  # [M, N] -> [N]
        """Return the mean rank [N] in the members' type; not-a-number for a response alone."""
        return torch.cat([_ranks(rewards).mean(0) for rewards in of_each(members, comparisons)]).to(
            members.dtype
        )


class Routed(Ensembler):
    """Comparisons without images to the members that read text alone, all others to those that see.

    Of the members that are asked, the mean. Where there are none of the wanted kind, all are asked.

    Args:
        on_text: Who is asked about comparisons without images: `text` for the members that read text
            alone, as arXiv 2509.16127 adds a text reward model to those that see; `all` for all members.
    """

    def __init__(self, *, on_text: Literal["text", "all"] = "text") -> None:
        self.on_text = on_text

    def route(self, comparison: Comparison, reads_images: Sequence[bool]) -> list[bool]:
        """Return which members [M] are asked about a comparison."""
        has_images = bool(comparison.images or comparison.videos)
        if not has_images and self.on_text == "all":
            return [True] * len(reads_images)
        wanted = [reads == has_images for reads in reads_images]
        return wanted if any(wanted) else [True] * len(wanted)

    def __call__(self, members: Tensor, comparisons: Sequence[Comparison]) -> Tensor:  # [M, N] -> [N]
        """Return the mean [N] of the members that were asked, in their type."""
        return checked(members).nanmean(0).to(members.dtype)


class Linear(Ensembler, abc.ABC):
    """Base of ensemblers that add the members' rewards up, each with a weight that is learned."""

    learns = True

    def __init__(self) -> None:
        self._weights: list[float] = []
        self._offset = 0.0

    @abc.abstractmethod
    def learned(self, members: Tensor, comparisons: Sequence[Comparison]) -> tuple[Tensor, float]:
        """Return the weights [M] and what is added to the sum, of rewards [M, N] fp64 of known order.

        Raises:
            DataError: When they can't be learned of these.
        """

    def fit(self, members: Tensor, comparisons: Sequence[Comparison]) -> None:
        """Learn the weights of the members' rewards [M, N] of comparisons whose ranks are known.

        Raises:
            DataError: When they can't be learned of these.
        """
        weights, self._offset = self.learned(checked(members), comparisons)
        self._weights = weights.tolist()

    def state(self) -> dict[str, Any]:
        """Return what was learned."""
        return {"weights": list(self._weights), "offset": self._offset}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take what was learned."""
        self._weights = [float(weight) for weight in state["weights"]]
        self._offset = float(state["offset"])

    def __call__(self, members: Tensor, comparisons: Sequence[Comparison]) -> Tensor:  # [M, N] -> [N]
        """Return the weighted sum [N] in the members' type.

        Raises:
            ConfigError: When nothing was learned, or of another number of members.
        """
        values = checked(members)
        if len(values) != len(self._weights):
            learned = f"has learned of {len(self._weights)} members, not {len(values)}"
            raise ConfigError(
                f"{type(self).__name__} {learned if self._weights else 'has learned nothing'}; fit it first"
            )
        weights = torch.tensor(self._weights, dtype=values.dtype, device=values.device)
        return (weights @ values + self._offset).to(members.dtype)


class AccuracyWeighted(Linear):
    """The members' rewards, weighted by the share of pairs that each has in order (arXiv 2509.16127, 4.7).

    Equal rewards count half.
    """

    def learned(self, members: Tensor, comparisons: Sequence[Comparison]) -> tuple[Tensor, float]:
        """Return the members' accuracies, which add up to 1."""
        accuracy = (margins(members, comparisons).sign() / 2 + 0.5).mean(1)
        return _normalised(accuracy, "no member has a pair in order"), 0.0


class ConfidenceWeighted(Linear):
    """The members' rewards, weighted by each one's mean margin (arXiv 2509.16127, 4.7).

    The margin of a pair is the reward of the better response less that of the worse. A member whose mean
    margin is below 0 gets no weight.
    """

    def learned(self, members: Tensor, comparisons: Sequence[Comparison]) -> tuple[Tensor, float]:
        """Return the members' mean margins, which add up to 1."""
        margin = margins(members, comparisons).mean(1).clamp(min=0)
        return _normalised(margin, "no member's mean margin is above 0"), 0.0


class ZMean(Linear):
    """The mean of the members' rewards, each brought to one scale and one mean.

    A member's scale is the standard deviation of its rewards within comparisons, since what lies between
    comparisons decides nothing; its mean is that of all its rewards. Both are learned. The result has the
    mean scale and the mean of the members.
    """

    is_scale_free = True

    def learned(self, members: Tensor, comparisons: Sequence[Comparison]) -> tuple[Tensor, float]:
        """Return weights that are one over each member's scale, and what restores the mean."""
        scale = scales(members, comparisons)
        if not bool((scale > 0).all()):
            number = int((scale > 0).int().argmin())
            raise DataError(
                f"member {number}, counted from 0, gives all responses of a comparison the same reward; "
                "it has no scale"
            )
        weights = scale.mean() / scale / len(members)
        mean = members.mean(1)
        return weights, float((mean / len(members) - weights * mean).sum())


class Stacked(Linear):
    """A logistic regression of which response of a pair is better on the members' margins.

    Its result is in log-odds: the difference of two responses' is how sure the regression is. Margins are
    brought to a mean square of 1, so that the penalty is the same for members of any scale.

    Args:
        l2: Penalty on the squares of the weights, > 0, beside the sum of the pairs' losses; 1 is that of
            scikit-learn's `LogisticRegression(C=1)`.
    """

    is_scale_free = True
    unit = "log-odds"

    def __init__(self, *, l2: float = 1.0) -> None:
        super().__init__()
        if not 0 < l2 < float("inf"):
            raise ValueError(f"l2 is a finite number > 0, not {l2}")
        self.l2 = l2

    def learned(self, members: Tensor, comparisons: Sequence[Comparison]) -> tuple[Tensor, float]:
        """Return the weights of the regression, which has no intercept: a pair has no first side."""
        margin = margins(members, comparisons).T  # [P, M]
        scale = margin.square().mean(0).sqrt()
        scale = torch.where(scale > 0, scale, 1.0)
        return logistic(margin / scale, self.l2) / scale, 0.0


def checked(members: Tensor) -> Tensor:
    """Return the members' rewards in fp64.

    Raises:
        ValueError: When `members` isn't [M, N] with M >= 1.
    """
    if members.ndim != 2 or not len(members):
        raise ValueError(f"members must be [M, N] with M >= 1, not of shape {list(members.shape)}")
    return members.double()


def of_each(members: Tensor, comparisons: Sequence[Comparison]) -> Iterator[Tensor]:
    """Yield the members' rewards [M, n] of each comparison, in fp64.

    Raises:
        ValueError: When there are not as many as the comparisons have responses.
    """
    values, sizes = checked(members), [len(comparison.responses) for comparison in comparisons]
    if sum(sizes) != values.shape[1]:
        raise ValueError(f"{values.shape[1]} rewards a member for {sum(sizes)} responses")
    yield from torch.split(values, sizes, dim=1)


def margins(members: Tensor, comparisons: Sequence[Comparison]) -> Tensor:  # [M, N] -> [M, P]
    """Return the members' rewards of the better response of each pair less those of the worse; ties are left
    out.

    Raises:
        DataError: When a comparison has no ranks, or no pair's order is known.
    """
    targets = Targets.of(comparisons, device=members.device)
    better, worse = targets.pairs[~targets.tie].T
    if not len(better):
        raise DataError("there is no pair whose order is known; give comparisons of 2 responses and more")
    return members[:, better] - members[:, worse]


def centred(members: Tensor, comparisons: Sequence[Comparison]) -> Tensor:  # [M, N] -> [M, N]
    """Return the members' rewards less each one's mean over the comparison's responses."""
    return torch.cat(
        [rewards - rewards.mean(1, keepdim=True) for rewards in of_each(members, comparisons)], 1
    )


def scales(members: Tensor, comparisons: Sequence[Comparison]) -> Tensor:  # [M, N] -> [M]
    """Return each member's scale: the standard deviation of its rewards within comparisons.

    Raises:
        DataError: When no comparison has two responses.
    """
    num_free = members.shape[1] - len(comparisons)
    if not num_free:
        raise DataError("there is no comparison of 2 responses, within which rewards could differ")
    return (centred(members, comparisons).square().sum(1) / num_free).sqrt()


def logistic(margin: Tensor, l2: float) -> Tensor:  # [P, M] -> [M]
    """Return the weights w that minimize sum(log(1 + exp(-margin @ w))) + l2 / 2 * |w|^2."""

    def cost(weights: Tensor) -> Tensor:
        return functional.softplus(-margin @ weights).sum() + l2 / 2 * weights.square().sum()

    weights = margin.new_zeros(margin.shape[1])
    identity = torch.eye(len(weights), dtype=margin.dtype, device=margin.device)
    for _ in range(NEWTON_STEPS):
        wrong = torch.sigmoid(-margin @ weights)  # [P]
        gradient = l2 * weights - margin.T @ wrong
        curvature = (margin.T * (wrong * (1 - wrong))) @ margin + l2 * identity
        step = torch.linalg.solve(curvature, gradient)
        while cost(weights - step) > cost(weights) and bool((step.abs() > 1e-12).any()):
            step = step / 2
        weights = weights - step
        if not bool((step.abs() > 1e-12).any()):
            break
    return weights


def _ranks(rewards: Tensor) -> Tensor:  # [M, n] -> [M, n]
    lower = (rewards[:, :, None] > rewards[:, None, :]).sum(2)
    equal = (rewards[:, :, None] == rewards[:, None, :]).sum(2) - 1
    return (lower + equal / 2) / (rewards.shape[1] - 1)


def _normalised(weights: Tensor, reason: str) -> Tensor:
    if not bool(weights.sum() > 0):
        raise DataError(f"{reason}, so none can be given a weight")
    return weights / weights.sum()
