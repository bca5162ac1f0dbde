"""Steps that filter by the preference: its length bias, its gap in rating, and its agreement with others."""

from __future__ import annotations

import json
from pathlib import Path

from basereward.comparison import Comparison
from basereward.data.curation.step import Step, best_and_worst, with_responses
from basereward.data.reading.rows import read_rows
from basereward.errors import ConfigError, DataError


class LengthBias(Step):
    """Drop rows whose best response is much longer than the others, so that length alone would explain it.

    As IXC-2.5-Reward does with pairs "whose chosen is much longer"; how much longer, its paper doesn't say.

    Args:
        max_ratio: Characters of the best response by those of the others, on average, from which on a row is
            dropped.
        min_characters: Differences of fewer characters never count.
        both_ways: Whether rows whose best response is much shorter are dropped too. Dropping the longer ones
            only turns the bias round: what is left prefers short responses.
    """

    name = "length-bias"

    def __init__(self, *, max_ratio: float = 2.0, min_characters: int = 100, both_ways: bool = False) -> None:
        if max_ratio < 1:
            raise ConfigError(f"max_ratio is {max_ratio:g}; it is at least 1")
        self.max_ratio = max_ratio
        self.min_characters = min_characters
        self.both_ways = both_ways

    def __call__(self, comparison: Comparison) -> Comparison | DataError:
        """Drop or keep."""
        ranks = comparison.ranks
        if ranks is None or len(set(ranks)) < 2:
            return comparison
        lengths = [len(response) for response in comparison.responses]
        best = [length for length, rank in zip(lengths, ranks, strict=True) if rank == min(ranks)]
        others = [length for length, rank in zip(lengths, ranks, strict=True) if rank != min(ranks)]
        mean_best, mean_other = sum(best) / len(best), sum(others) / len(others)
        longer, shorter = max(mean_best, mean_other), min(mean_best, mean_other)
        is_far = longer >= self.max_ratio * shorter and longer - shorter >= self.min_characters
        if is_far and (mean_best > mean_other or self.both_ways):
            how = "longer" if mean_best > mean_other else "shorter"
            return DataError(
                f"best response much {how}: {mean_best:.0f} characters against {mean_other:.0f}",
                field="responses",
            )
        return comparison


class HardestPair(Step):
    """Keep the two responses with the largest gap in rating: one pair a prompt, as in "Ultra-Hard".

    "Only the pair with the largest score difference" per prompt is what the BaseReward paper keeps of
    UltraFeedback (Table 4). Rows without ratings are judged by their ranks.

    Args:
        min_gap: Rows with a smaller gap in rating are dropped.
    """

    name = "hardest-pair"

    def __init__(self, *, min_gap: float = 0.0) -> None:
        self.min_gap = min_gap

    def __call__(self, comparison: Comparison) -> Comparison | DataError:
        """Drop, shorten or keep."""
        pair = best_and_worst(comparison)
        if pair is None:
            return DataError("no response better than another", field="ranks")
        error = too_small_gap(comparison, pair, self.min_gap)
        if error is not None:
            return error
        return comparison if len(comparison.responses) == 2 else with_responses(comparison, sorted(pair))


class MinGap(Step):
    """Drop rows whose best and worst response are rated nearly alike, which judges disagree about most.

    Args:
        min_gap: The gap in rating that is needed; rows without ratings stay.
    """

    name = "min-gap"

    def __init__(self, *, min_gap: float) -> None:
        self.min_gap = min_gap

    def __call__(self, comparison: Comparison) -> Comparison | DataError:
        """Drop or keep."""
        pair = best_and_worst(comparison)
        error = None if pair is None else too_small_gap(comparison, pair, self.min_gap)
        return comparison if error is None else error


class Agreement(Step):
    """Drop rows that other judges order otherwise.

    The judges are files that `basereward score` wrote for the same rows, one each. Of every pair of responses
    that the row ranks differently, a judge agrees if its reward is higher for the better one.

    Args:
        scores: The files; a line is found by the row's `id` where it has one, else by its line number.
        min_agreement: Share of agreeing judgements, over all pairs and judges, that a row needs.
    """

    name = "agreement"

    def __init__(self, *, scores: tuple[Path, ...], min_agreement: float = 0.5) -> None:
        if not scores:
            raise ConfigError("scores is empty; name at least one file that `basereward score` wrote")
        if not 0 <= min_agreement <= 1:
            raise ConfigError(f"min_agreement is {min_agreement:g}; it is from 0 to 1")
        self.min_agreement = min_agreement
        self.judges = [_rewards(path) for path in scores]

    def __call__(self, comparison: Comparison) -> Comparison | DataError:
        """Drop or keep."""
        if comparison.ranks is None:
            return comparison
        pairs = [pair for pair in comparison.pairs() if not pair.tie]
        votes = []
        for judge in self.judges:
            rewards = judge.get(comparison.id) or judge.get(comparison.place.line or 0)
            if rewards is None or len(rewards) != len(comparison.responses):
                return DataError("not judged: a score file has no rewards for the row's responses")
            votes += [rewards[pair.chosen] > rewards[pair.rejected] for pair in pairs]
        share = sum(votes) / len(votes) if votes else 1.0
        if share < self.min_agreement:
            return DataError(
                f"judges disagree: {sum(votes)} of {len(votes)} judgements as the row ranks", field="ranks"
            )
        return comparison


def too_small_gap(comparison: Comparison, pair: tuple[int, int], min_gap: float) -> DataError | None:
    """Return the reason to drop a row whose ratings are too near each other, if they are."""
    if comparison.ratings is None:
        return None
    gap = comparison.ratings[pair[0]] - comparison.ratings[pair[1]]
    if gap >= min_gap:
        return None
    return DataError(f"small gap: {gap:g} in rating, {min_gap:g} needed", field="ratings")


def _rewards(path: Path) -> dict[str | int, list[float]]:
    """Return the rewards of a file of scores by id as text, or by line number where a row has no id."""
    rewards: dict[str | int, list[float]] = {}
    for _, row in read_rows(path):
        if isinstance(row, DataError):
            raise row.at(file=str(path))
        if not isinstance(row.get("line"), int):
            raise DataError(f"is no file of scores: a row has {json.dumps(row)[:60]}", file=str(path))
        if "rewards" in row:
            rewards[str(row["id"]) if "id" in row else row["line"]] = row["rewards"]
    return rewards
