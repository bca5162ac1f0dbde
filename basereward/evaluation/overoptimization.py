"""Overoptimization: what a gold reward makes of the responses that a proxy reward chooses, by best of n.

Gao et al., arXiv 2210.10760. The best of n drawn responses is KL = ln n - (n - 1) / n away from the policy
that drew them. Gains are over a single draw, each reward in its own spreads within prompts, so that both
start at 0.

Shapes: K prompts, M members, N responses of all prompts, n responses of one prompt.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.evaluation.scored_pairs import GROUP
from basereward.protocols import Scorer
from basereward.scoring.ordered import members_of, score_in_order
from basereward.stats.seeds import PairedDifference, holm, mean_difference

MODEL = "model"
"""The name of the curve of the proxy's own rewards."""

ENSEMBLERS = ("mean", "min", "mean-minus-std")
"""What is compared with an ensemble's single members, which are brought to one mean and scale before."""


NUM_RESAMPLES = 2000
"""Draws of the bootstrap."""


@dataclass(frozen=True)
class Curve:
    """The worth of a proxy's best of n, by n.

    Attributes:
        proxy: By n, the gain of the proxy reward over a single draw, in its spreads within prompts.
        gold: By n, the gain of the gold reward.
        peak: The n of the highest gold reward.
        fall: Gold reward at the largest n less that at the peak, its p-value corrected for all n that could
            have been the peak (Holm); None where the peak is the largest n.
    """

    proxy: Mapping[int, PairedDifference]
    gold: Mapping[int, PairedDifference]
    peak: int
    fall: PairedDifference | None


@dataclass(frozen=True)
class Delay:
    """The delay of the peak of the gold reward by an ensemble, against its members' peaks.

    Attributes:
        value: KL at the peak of the ensemble, less the mean of the KL at its members' peaks.
        low: Lower end of the 95 % interval, by a bootstrap over groups of prompts.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Overoptimization:
    """Proxy against gold reward, over best of n.

    Attributes:
        curves: By name: `model`, and of an ensemble each member and each of `ENSEMBLERS`.
        against_members: By ensembler, gold reward at the largest n less the mean of single members', its
            p-value corrected for the number of ensemblers (Holm).
        delays: By ensembler, how much later its peak is than its members'.
        num_prompts: Prompts that both have scored.
        rejected: Those that are left out, with the reason.
    """

    curves: Mapping[str, Curve]
    against_members: Mapping[str, PairedDifference]
    delays: Mapping[str, Delay]
    num_prompts: int
    rejected: Sequence[DataError]

    @property
    def sizes(self) -> list[int]:
        """Every n."""
        return list(self.curves[MODEL].gold)

    def to_dict(self) -> dict[str, Any]:
        """Return the curves for a JSON report."""
        return {
            "num_prompts": self.num_prompts,
            "num_rejected": len(self.rejected),
            "kl": {str(num): kl_of(num) for num in self.sizes},
            "curves": {name: asdict(curve) for name, curve in self.curves.items()},
            "against_members": {name: asdict(part) for name, part in self.against_members.items()},
            "delays": {name: asdict(delay) for name, delay in self.delays.items()},
        }


class GivenRatings(Scorer[list[float]]):
    """Gives the ratings that the rows have, or their ranks where they have none: what people said is gold."""

    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8
    ) -> Iterator[tuple[Comparison, list[float] | DataError]]:
        """Yield each comparison with its ratings, or an error where it has neither them nor ranks."""
        for comparison in comparisons:
            if comparison.ratings is not None:
                yield comparison, list(comparison.ratings)
            elif comparison.ranks is not None:
                yield comparison, [-rank for rank in comparison.ranks]
            else:
                yield comparison, DataError("has neither ratings nor ranks", field="ratings")


def kl_of(num: int) -> float:
    """Return the KL divergence of the best of `num` draws from a single draw."""
    return math.log(num) - (num - 1) / num


def best_of_n_weights(
    rewards: NDArray[np.float64],  # [n]
    num: int,
) -> NDArray[np.float64]:  # [n]
    """Return the probability of each response to be the best of `num` drawn without replacement.

    Of the i-th of n by rising reward it is C(i - 1, num - 1) / C(n, num); equal rewards share theirs.
    """
    total = math.comb(len(rewards), num)
    by_place = np.array([math.comb(place, num - 1) / total for place in range(len(rewards))])
    _, group, counts = np.unique(rewards, return_inverse=True, return_counts=True)
    order = np.sort(group)
    return np.asarray((np.bincount(order, weights=by_place) / counts)[group])


def overoptimization(
    proxy: Scorer[list[float]],
    gold: Scorer[list[float]],
    comparisons: Iterable[Comparison | DataError],
    *,
    max_num: int | None = None,
    batch_size: int = 8,
    advance: Callable[[], object] = lambda: None,
) -> Overoptimization:
    """Score candidates by two models, and return what the gold one makes of the proxy's choices.

    Args:
        proxy: Chooses.
        gold: Judges what is chosen.
        comparisons: Prompts with their candidates; ranks are not read.
        max_num: The largest n; None for the number of candidates that most prompts have. Prompts with fewer
            are left out.
        batch_size: Comparisons a forward pass.
        advance: Called as each prompt is done by one of both.

    Raises:
        ConfigError: When `max_num` is below 2.
        DataError: When no prompt has been scored, or a model gives every candidate of each prompt one reward.
    """
    if max_num is not None and max_num < 2:
        raise ConfigError(f"the largest n is a number of candidates >= 2, not {max_num}")
    items = list(comparisons)
    if max_num is None:
        counts = Counter(len(item.responses) for item in items if isinstance(item, Comparison))
        max_num = max(2, counts.most_common(1)[0][0]) if counts else 2
    rejected = [item for item in items if isinstance(item, DataError)]
    enough: list[Comparison] = []
    for item in items:
        if isinstance(item, DataError):
            continue
        if len(item.responses) < max_num:
            few = f"{len(item.responses)} candidates are fewer than {max_num}, the largest n"
            rejected.append(item.place.locate(DataError(few, field="responses")))
        else:
            enough.append(item)
    scored = [
        [result for _, result in score_in_order(model, enough, batch_size=batch_size, advance=advance)]
        for model in (proxy, gold)
    ]
    rows: list[tuple[Comparison, list[float], list[float]]] = []
    for item, by_proxy, by_gold in zip(enough, *scored, strict=True):
        for result in (by_proxy, by_gold):
            if isinstance(result, DataError):
                rejected.append(result)
                break
        else:
            rows.append((item, by_proxy, by_gold))
    if not rows:
        first = f", the first: {rejected[0]}" if rejected else ""
        raise DataError(f"none of {len(items)} prompts can be used{first}")
    return _overoptimization(rows, max_num, rejected)


def _overoptimization(
    rows: Sequence[tuple[Comparison, list[float], list[float]]], max_num: int, rejected: Sequence[DataError]
) -> Overoptimization:
    sizes = [2**power for power in range(max_num.bit_length()) if 2**power < max_num] + [max_num]
    names = [str(item.meta.get(GROUP, number)) for number, (item, _, _) in enumerate(rows)]
    group = np.unique(names, return_inverse=True)[1]
    golds = _standardized([np.array(gold) for *_, gold in rows])
    proxies = {MODEL: [np.array(proxy) for _, proxy, _ in rows]}
    members = _members([proxy for _, proxy, _ in rows])
    joined = _joined(members, [item for item, _, _ in rows])
    proxies |= {f"member {name}": rewards for name, rewards in members.items()} | joined
    curves = {}
    worth: dict[str, NDArray[np.float64]] = {}  # [K] at the largest n
    golds_of: dict[str, NDArray[np.float64]] = {}  # [K, sizes]
    for name, rewards in proxies.items():
        standard = _standardized(rewards)
        weights = {num: [best_of_n_weights(each, num) for each in rewards] for num in sizes}
        by_gold = {num: _means(weights[num], golds) for num in sizes}
        by_proxy = {num: _means(weights[num], standard) for num in sizes}
        worth[name] = by_gold[max_num]
        golds_of[name] = np.stack(list(by_gold.values()), 1)
        curves[name] = _curve(by_proxy, by_gold, group)
    single = [worth[f"member {name}"] for name in members]
    of_members = [golds_of[f"member {name}"] for name in members]
    delays = {name: _delay(golds_of[name], of_members, sizes, group) for name in joined}
    against = (
        {name: mean_difference(worth[name], np.mean(single, 0), group) for name in joined} if single else {}
    )
    adjusted = holm([part.p for part in against.values()])
    against = {name: part.corrected(p) for (name, part), p in zip(against.items(), adjusted, strict=True)}
    return Overoptimization(curves, against, delays, len(rows), rejected)


def _curve(
    by_proxy: Mapping[int, NDArray[np.float64]],
    by_gold: Mapping[int, NDArray[np.float64]],
    group: NDArray[np.int64],
) -> Curve:
    """Return the curve of gains [K] by n."""
    gold = {num: mean_difference(gains, 0.0, group) for num, gains in by_gold.items()}
    largest = max(by_gold)
    peak = max(gold, key=lambda num: gold[num].value)
    falls = {
        num: mean_difference(by_gold[largest], gains, group)
        for num, gains in by_gold.items()
        if num != largest
    }
    adjusted = dict(zip(falls, holm([fall.p for fall in falls.values()]), strict=True))
    fall = None if peak == largest else replace(falls[peak], adjusted=adjusted[peak])
    return Curve(
        {num: mean_difference(gains, 0.0, group) for num, gains in by_proxy.items()}, gold, peak, fall
    )


def _delay(
    ensemble: NDArray[np.float64],  # [K, sizes]
    members: Sequence[NDArray[np.float64]],  # of [K, sizes]
    sizes: Sequence[int],
    group: NDArray[np.int64],  # [K]
) -> Delay:
    """Return how much later an ensemble's peak is, with the percentiles of a bootstrap."""
    divergence = np.array([kl_of(num) for num in sizes])
    num_groups = int(group.max()) + 1
    drawn = np.random.default_rng(0).multinomial(
        num_groups, np.full(num_groups, 1 / num_groups), NUM_RESAMPLES
    )
    counts = np.concatenate([np.ones((1, num_groups), dtype=np.int64), drawn])  # all prompts once, then draws

    def peaks(gold: NDArray[np.float64]) -> NDArray[np.float64]:  # KL at the peak, of each draw
        sums = np.zeros((num_groups, len(sizes)))
        np.add.at(sums, group, gold)
        return np.asarray(divergence[(counts @ sums).argmax(1)])

    shifts = peaks(ensemble) - np.mean([peaks(gold) for gold in members], 0)
    low, high = np.percentile(shifts[1:], [2.5, 97.5])
    return Delay(float(shifts[0]), float(low), float(high))


def _standardized(rewards: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Return rewards less each prompt's mean, over their standard deviation within prompts."""
    spread = _spread(rewards)
    if spread == 0:
        raise DataError("a model gives all candidates of each prompt one reward, so that none is the best")
    return [(each - each.mean()) / spread for each in rewards]


def _means(
    weights: Sequence[NDArray[np.float64]], rewards: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:  # [K]
    return np.array([float(each @ of) for each, of in zip(weights, rewards, strict=True)])


def _members(scored: Sequence[list[float]]) -> dict[str, list[NDArray[np.float64]]]:
    """Return the rewards of each member that has scored every prompt; none of a single model."""
    columns = [members_of(rewards).get("members", {}) for rewards in scored]
    names = [name for name in columns[0] if all(name in column for column in columns)]
    return {name: [np.array(column[name]) for column in columns] for name in names if len(names) > 1}


def _joined(
    members: Mapping[str, Sequence[NDArray[np.float64]]], comparisons: Sequence[Comparison]
) -> dict[str, list[NDArray[np.float64]]]:
    """Return the members' rewards joined by each of `ENSEMBLERS`."""
    if not members:
        return {}
    import torch

    from basereward.ensemblers import Mean, MeanMinusStd, Min

    # The prompts' means stay in, since `min` asks which member gives a response least.
    rewards = torch.tensor(np.array([np.concatenate(each) for each in members.values()]))  # [M, N]
    spread = torch.tensor([_spread(each) or 1.0 for each in members.values()], dtype=rewards.dtype)[:, None]
    rewards = (rewards - rewards.mean(1, keepdim=True)) / spread
    lengths = [len(comparison.responses) for comparison in comparisons]
    return {
        name: [part.numpy() for part in ensembler(rewards, comparisons).split(lengths)]
        for name, ensembler in zip(ENSEMBLERS, (Mean(), Min(), MeanMinusStd()), strict=True)
    }


def _spread(rewards: Sequence[NDArray[np.float64]]) -> float:
    """Return the standard deviation of rewards within prompts."""
    centred = np.concatenate([each - each.mean() for each in rewards])
    return float(np.sqrt((centred**2).sum() / (len(centred) - len(rewards))))
