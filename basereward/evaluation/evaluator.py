"""Evaluate a model on comparisons whose order is known."""

from __future__ import annotations

import heapq
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from basereward.comparison import Comparison
from basereward.data import Dataset
from basereward.data.formats import comparisons_of
from basereward.errors import DataError
from basereward.evaluation.metrics import GAPS, metrics_of
from basereward.evaluation.results import Evaluation, Result, Wrong
from basereward.evaluation.scored_pairs import GROUP, PairCollector, evaluable_pairs
from basereward.protocols import Scorer
from basereward.reporting.progress import progress_bar
from basereward.scoring.ordered import members_of, placed, score_in_order

if TYPE_CHECKING:
    from basereward.paradigms.verdicts import Verdicts

NUM_WORST = 24
"""Comparisons in the error gallery."""


def evaluate(
    model: Scorer[list[float]],
    comparisons: Iterable[Comparison | Mapping[str, Any]],
    *,
    batch_size: int = 8,
    progress: bool = False,
    gaps: Sequence[float] = GAPS,
    num_wrong: int = NUM_WORST,
    verdicts: dict[int, Verdicts] | None = None,
    scores_single: bool = False,
) -> Evaluation:
    """Score comparisons and compare the rewards with their ranks.

    Comparisons without pairs or rewards, and rows that can't be read, are listed in `rejected`.

    Args:
        model: A `RewardModel`, or another `basereward.protocols.Scorer`.
        comparisons: Comparisons with ranks, which are read once and not kept, or rows in any layout that
            files may have, such as {"prompt", "chosen", "rejected"}; a `Dataset` adds its rejected rows.
        batch_size: Comparisons in a forward pass; the rewards don't depend on it.
        progress: Whether to show a progress bar on standard error.
        gaps: Rating gaps of the accuracy by gap.
        num_wrong: Number of the most wrong comparisons to keep for the error gallery.
        verdicts: Receives a judge's verdicts on each comparison by its number, even if this function raises.
        scores_single: Whether comparisons of one response, which have no pair, are scored too.

    Raises:
        DataError: When no pair has a known order; for a bad row of a `Dataset` whose `on_bad_row` is "fail".
    """
    tally = _Tally(num_wrong)
    verdicts = {} if verdicts is None else verdicts
    members: dict[str, _Tally] = {}
    rejected: list[DataError] = []
    disagreement: list[float] = []
    number = -1
    is_strict = isinstance(comparisons, Dataset) and comparisons.on_bad_row == "fail"
    start = time.perf_counter()
    with (
        model.recording_verdicts() as recorded,
        progress_bar("evaluating", _total(comparisons), is_shown=progress) as advance,
    ):
        rows = comparisons_of(comparisons)
        items = rows if scores_single else _evaluable(rows)
        scoring = score_in_order(model, items, batch_size=batch_size, advance=advance)
        for number, (item, scored) in enumerate(scoring):
            if (judged := recorded.pop(id(item), None)) is not None:
                verdicts[number] = judged
            if isinstance(scored, DataError):
                if is_strict:
                    raise scored
                rejected.append(scored)
                continue
            assert isinstance(item, Comparison)  # an error comes with itself as its result
            tally.add(number, item, scored)
            by_member = members_of(scored)
            disagreement += by_member.get("disagreement", [])
            for name, rewards in by_member.get("members", {}).items():
                members.setdefault(name, _Tally(0)).add(number, item, rewards)
            if tally.num_evaluated:
                advance(0, f"{tally.num_right / tally.num_evaluated:.3f} all pairs correct")
    seconds = time.perf_counter() - start
    if isinstance(comparisons, Dataset):
        rejected = [*comparisons.rejected, *rejected]
    try:
        evaluation = tally.evaluation(number + 1, rejected, seconds, gaps)
    except DataError as error:
        if rejected:
            raise DataError(
                f"{error.reason}; {len(rejected)} rows were rejected, the first: {rejected[0]}"
            ) from error
        raise
    return replace(
        evaluation,
        statistics=dict(model.statistics),
        verdicts=verdicts,
        members={
            name: member.evaluation(number + 1, rejected, seconds, gaps)
            for name, member in members.items()
            if member.num_evaluated
        },
        disagreement=statistics.fmean(disagreement) if disagreement else None,
    )


class _Tally:
    """Collect the rewards of one model, comparison by comparison, and the `num_wrong` most wrong ones.

    Attributes:
        num_evaluated: Comparisons with a pair that is no tie.
        num_right: Those whose pairs the model orders correctly.
    """

    def __init__(self, num_wrong: int) -> None:
        self.num_evaluated = self.num_right = 0
        self._num_wrong = num_wrong
        self._collector = PairCollector()
        self._results: list[Result] = []
        # A heap whose first entry is the least wrong of those kept.
        self._wrong: list[tuple[float, int, Wrong]] = []

    def add(self, number: int, comparison: Comparison, rewards: Sequence[float]) -> None:
        """Take the rewards [N] of a comparison."""
        margin = self._collector.add(comparison, rewards)
        group = str(comparison.meta.get(GROUP, ""))
        ranks = comparison.ranks or ()
        result = Result(comparison.id, comparison.source, number, group, tuple(rewards), ranks, margin)
        self._results.append(result)
        if margin is None:
            return
        self.num_evaluated += 1
        self.num_right += margin > 0
        if margin < 0 and self._num_wrong:
            heapq.heappush(self._wrong, (-margin, -len(self._results), Wrong(comparison, result)))
            if len(self._wrong) > self._num_wrong:
                heapq.heappop(self._wrong)

    def evaluation(
        self, num_comparisons: int, rejected: Sequence[DataError], seconds: float, gaps: Sequence[float]
    ) -> Evaluation:
        """Return the evaluation.

        Raises:
            DataError: When no pair has a known order.
        """
        metrics = metrics_of(pairs := self._collector.collected(), gaps=gaps)
        worst = [entry[2] for entry in sorted(self._wrong, key=lambda entry: entry[:2], reverse=True)]
        return Evaluation(metrics, pairs, self._results, rejected, worst, num_comparisons, seconds)


def _evaluable(comparisons: Iterable[Comparison]) -> Iterator[Comparison | DataError]:
    """Replace each comparison without pairs by an error, so that it is not scored."""
    for comparison in comparisons:
        try:
            evaluable_pairs(comparison)
        except DataError as error:
            yield placed(error, comparison)
        else:
            yield comparison


def _total(comparisons: Iterable[Comparison | Mapping[str, Any]]) -> int | None:
    if isinstance(comparisons, Dataset):
        return comparisons.num_rows
    return len(comparisons) if isinstance(comparisons, Sized) else None
