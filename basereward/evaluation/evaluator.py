"""Evaluate a model on comparisons whose order is known."""

from __future__ import annotations

import heapq
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basereward.comparison import Comparison
from basereward.data import Dataset
from basereward.errors import DataError
from basereward.evaluation import error_gallery, plots, report
from basereward.evaluation.metrics import GAPS, Metrics, metrics_of
from basereward.evaluation.scored_pairs import GROUP, PairCollector, ScoredPairs, pairs_to_judge
from basereward.reporting.progress import progress_bar
from basereward.scoring.ordered import Scorer, members_of, placed, score_in_order

if TYPE_CHECKING:
    from collections.abc import Iterable

    from basereward.stats.interval import Interval

NUM_WORST = 24
"""Comparisons on the sheet of the most wrong ones."""


@dataclass(frozen=True, slots=True)
class Result:
    """The rewards of one comparison, and what else is needed to read them.

    Attributes:
        id: The comparison's.
        source: The data set's name.
        number: Its place among the comparisons, counted from 0.
        group: Which comparisons it is not independent of, by `group` of its `meta`; "" if of none.
        rewards: [N] one a response.
        ranks: [N] the known order, smaller is better.
        margin: The smallest margin among its pairs, below nought where one is wrong; None if all are ties.
    """

    id: str
    source: str
    number: int
    group: str
    rewards: tuple[float, ...]
    ranks: tuple[float, ...]
    margin: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the line of `rewards.jsonl`."""
        return {
            "id": self.id,
            "source": self.source,
            "number": self.number,
            "group": self.group,
            "rewards": list(self.rewards),
            "ranks": list(self.ranks),
            "margin": self.margin,
        }


@dataclass(frozen=True)
class Wrong:
    """A comparison that the model orders wrongly."""

    comparison: Comparison
    result: Result


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: The numbers.
        pairs: The columns that they were computed from.
        results: The rewards of each comparison, in order.
        rejected: Rows that could not be used, each with file, line and reason as far as they are known.
        wrong: The comparisons with the most negative margins, the worst first.
        num_comparisons: How many comparisons there were, those included that could not be scored.
        seconds: How long the scoring took.
        statistics: What the model counted, such as verdicts that could not be read.
        members: Of an ensemble, what the evaluation found of each member whose rewards have pairs.
        disagreement: Of an ensemble, how far its members are apart: the mean over responses of
            `EnsembleRewards.disagreement`; None where no two members were asked.
    """

    metrics: Metrics
    pairs: ScoredPairs
    results: Sequence[Result]
    rejected: Sequence[DataError]
    wrong: Sequence[Wrong]
    num_comparisons: int
    seconds: float
    statistics: Mapping[str, float] = field(default_factory=dict)
    members: Mapping[str, Evaluation] = field(default_factory=dict)
    disagreement: float | None = None

    @property
    def accuracy(self) -> Interval:
        """Pair accuracy with its 95 % interval."""
        return self.metrics.accuracy

    @property
    def rewards(self) -> list[tuple[float, ...] | None]:
        """The rewards of every comparison in order, None for one that could not be scored."""
        found: list[tuple[float, ...] | None] = [None] * self.num_comparisons
        for result in self.results:
            found[result.number] = result.rewards
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for a JSON report."""
        return {
            **self.metrics.to_dict(),
            "num_rejected": len(self.rejected),
            "seconds": round(self.seconds, 3),
            **({"statistics": dict(self.statistics)} if self.statistics else {}),
            **({"disagreement": self.disagreement} if self.disagreement is not None else {}),
            **(
                {"members": {name: member.to_dict() for name, member in self.members.items()}}
                if self.members
                else {}
            ),
        }

    def save(self, directory: str | Path, facts: Mapping[str, Any] | None = None) -> None:
        """Write the report, its plots and the sheet of the most wrong comparisons.

        The files: `report.json`, `report.md`, `rewards.jsonl`, `rejected.jsonl`, `plots/*.png`, `wrong.html`,
        `wrong.png`; of an ensemble `members/NAME/rewards.jsonl`. Without matplotlib there are no plots, and
        `report.md` says so.

        Args:
            directory: Where to; made if it isn't there, files in it are replaced.
            facts: What else the report should say, such as model and data.
        """
        directory, facts = Path(directory), dict(facts or {})
        directory.mkdir(parents=True, exist_ok=True)
        drawn = plots.save(self.metrics, self.pairs, directory / "plots") if plots.is_available() else []
        error_gallery.save_html(self.wrong, directory / "wrong.html")
        error_gallery.save_image(self.wrong, directory / "wrong.png")
        text = report.markdown(
            report.lines_of(self),
            self.rejected,
            {**facts, **self.statistics},
            [path.relative_to(directory).as_posix() for path in drawn],
            len(self.wrong),
        )
        (directory / "report.md").write_text(text, encoding="utf-8")
        self.save_numbers(directory, facts)

    def save_numbers(self, directory: str | Path, facts: Mapping[str, Any] | None = None) -> None:
        """Write what a program reads of the report: `report.json`, `rewards.jsonl`, `rejected.jsonl`.

        Args:
            directory: As of `save`.
            facts: Likewise.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        _write_lines(directory / "rewards.jsonl", (result.to_dict() for result in self.results))
        _write_lines(directory / "rejected.jsonl", map(report.rejected_row, self.rejected))
        for name, member in self.members.items():
            (directory / "members" / name).mkdir(parents=True, exist_ok=True)
            _write_lines(
                directory / "members" / name / "rewards.jsonl", (one.to_dict() for one in member.results)
            )
        # Last, so that a directory with a report.json has all the rest too.
        whole = json.dumps({**(facts or {}), **self.to_dict()}, indent=2, ensure_ascii=False)
        (directory / "report.json").write_text(whole + "\n", encoding="utf-8")


def evaluate(
    model: Scorer,
    comparisons: Iterable[Comparison],
    batch_size: int = 8,
    progress: bool = True,
    *,
    gaps: Sequence[float] = GAPS,
    num_wrong: int = NUM_WORST,
) -> Evaluation:
    """Score comparisons and hold the rewards against their ranks.

    Comparisons that can't be judged or scored, and rows that can't be read, are listed in `rejected`.

    Args:
        model: A `RewardModel`, or anything that has its `score_stream`.
        comparisons: With ranks; a `Dataset` brings its rejected rows along. Read once and not kept.
        batch_size: Comparisons a forward pass; the rewards don't depend on it.
        progress: Whether to show a progress bar on standard error.
        gaps: Differences of ratings to tell accuracy by.
        num_wrong: How many of the most wrong comparisons to keep for the sheet.

    Raises:
        DataError: When no pair can be judged; for any bad row of a `Dataset` whose `on_bad_row` is "fail".
    """
    whole = _Tally(num_wrong)
    members: dict[str, _Tally] = {}
    rejected: list[DataError] = []
    disagreement: list[float] = []
    number = -1
    is_strict = isinstance(comparisons, Dataset) and comparisons.on_bad_row == "fail"
    start = time.perf_counter()
    with progress_bar("evaluating", _total(comparisons), is_shown=progress) as advance:
        items = _judgeable(comparisons)
        scoring = score_in_order(model, items, batch_size=batch_size, advance=advance)
        for number, (item, scored) in enumerate(scoring):
            if isinstance(scored, DataError):
                if is_strict:
                    raise scored
                rejected.append(scored)
                continue
            assert isinstance(item, Comparison)  # an error comes with itself as its result
            whole.add(number, item, scored)
            of_members = members_of(scored)
            disagreement += of_members.get("disagreement", [])
            for name, rewards in of_members.get("members", {}).items():
                members.setdefault(name, _Tally(0)).add(number, item, rewards)
            if whole.num_judged:
                advance(0, f"{whole.num_right / whole.num_judged:.3f} wholly right")
    seconds = time.perf_counter() - start
    if isinstance(comparisons, Dataset):
        rejected = [*comparisons.rejected, *rejected]
    try:
        found = whole.evaluation(number + 1, rejected, seconds, gaps)
    except DataError as error:
        if rejected:
            raise DataError(
                f"{error.reason}; {len(rejected)} rows were rejected, the first: {rejected[0]}"
            ) from error
        raise
    return replace(
        found,
        statistics=dict(getattr(model, "statistics", {})),
        members={
            name: tally.evaluation(number + 1, rejected, seconds, gaps)
            for name, tally in members.items()
            if tally.num_judged
        },
        disagreement=statistics.fmean(disagreement) if disagreement else None,
    )


class _Tally:
    """Takes what one model gives, comparison by comparison.

    Args:
        num_wrong: How many of the most wrong comparisons to keep.

    Attributes:
        num_judged: Comparisons with a pair that is no tie.
        num_right: Those of which the model has every pair in order.
    """

    def __init__(self, num_wrong: int) -> None:
        self.num_judged = self.num_right = 0
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
        self.num_judged += 1
        self.num_right += margin > 0
        if margin < 0 and self._num_wrong:
            heapq.heappush(self._wrong, (-margin, -len(self._results), Wrong(comparison, result)))
            if len(self._wrong) > self._num_wrong:
                heapq.heappop(self._wrong)

    def evaluation(
        self, num_comparisons: int, rejected: Sequence[DataError], seconds: float, gaps: Sequence[float]
    ) -> Evaluation:
        """Return what was found.

        Raises:
            DataError: When no pair can be judged.
        """
        metrics = metrics_of(pairs := self._collector.collected(), gaps=gaps)
        worst = [entry[2] for entry in sorted(self._wrong, key=lambda entry: entry[:2], reverse=True)]
        return Evaluation(metrics, pairs, self._results, rejected, worst, num_comparisons, seconds)


def _judgeable(comparisons: Iterable[Comparison]) -> Iterator[Comparison | DataError]:
    """Put an error in the place of each comparison that it would be no use to score."""
    for comparison in comparisons:
        try:
            pairs_to_judge(comparison)
        except DataError as error:
            yield placed(error, comparison)
        else:
            yield comparison


def _total(comparisons: Iterable[Comparison]) -> int | None:
    if isinstance(comparisons, Sized):
        return len(comparisons)
    return comparisons.num_rows if isinstance(comparisons, Dataset) else None


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
