"""The records of an evaluation: rewards of each comparison, wrongly ordered comparisons, and the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.evaluation.metrics import PairMetrics
from basereward.evaluation.scored_pairs import ScoredPairs
from basereward.stats.interval import Interval

if TYPE_CHECKING:
    from basereward.paradigms.verdicts import Verdicts


@dataclass(frozen=True, slots=True)
class Result:
    """The rewards of one comparison, with its ranks.

    Attributes:
        id: The comparison's id.
        source: The data set's name.
        number: The comparison's place in the data, counted from 0.
        group: `group` of the comparison's `meta`: comparisons of one group are not independent; "" if none.
        rewards: [N] one a response.
        ranks: [N] the known order, smaller is better.
        margin: The smallest margin among its pairs, negative where one is wrong; None if all are ties.
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
        return asdict(self)


@dataclass(frozen=True)
class Unread:
    """The record of a judge in none of whose answers a verdict could be read, so that nothing has rewards.

    Attributes:
        reason: Why there are no rewards.
        num_comparisons: The comparisons that it was asked about, and those that could not be.
        statistics: Counts that the model kept.
        verdicts: What was read of each comparison by its number: nothing, of so many answers.
    """

    reason: str
    num_comparisons: int
    statistics: Mapping[str, float]
    verdicts: Mapping[int, Verdicts]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for a JSON report."""
        return {
            "unread": self.reason,
            "num_comparisons": self.num_comparisons,
            "statistics": dict(self.statistics),
        }


@dataclass(frozen=True)
class Wrong:
    """A comparison that the model orders wrongly."""

    comparison: Comparison
    result: Result


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a model on comparisons, with the rewards that they are computed from.

    Attributes:
        metrics: Accuracy, calibration and length bias.
        pairs: The columns that they were computed from.
        results: The rewards of each comparison, in order.
        rejected: Rows that could not be used, with file, line and reason where they are known.
        wrong: The comparisons with the most negative margins, the worst first.
        num_comparisons: Number of comparisons, with those that could not be scored.
        seconds: Duration of the scoring.
        statistics: Counts that the model kept, such as of verdicts that could not be read.
        verdicts: A judge's verdicts on each comparison by its number, those without rewards included.
        members: Of an ensemble, the evaluation of each member whose rewards have pairs.
        disagreement: Of an ensemble, how far its members are apart: the mean over responses of
            `EnsembleRewards.disagreement`; None where no two members were asked.
    """

    metrics: PairMetrics
    pairs: ScoredPairs
    results: Sequence[Result]
    rejected: Sequence[DataError]
    wrong: Sequence[Wrong]
    num_comparisons: int
    seconds: float
    statistics: Mapping[str, float] = field(default_factory=dict)
    verdicts: Mapping[int, Verdicts] = field(default_factory=dict)
    members: Mapping[str, Evaluation] = field(default_factory=dict)
    disagreement: float | None = None

    @property
    def accuracy(self) -> Interval:
        """Pair accuracy with its 95 % interval."""
        return self.metrics.accuracy

    @property
    def rewards(self) -> list[tuple[float, ...] | None]:
        """The rewards of every comparison in order, None for one that could not be scored."""
        rewards: list[tuple[float, ...] | None] = [None] * self.num_comparisons
        for result in self.results:
            rewards[result.number] = result.rewards
        return rewards

    def __len__(self) -> int:
        """Return the number of comparisons, those without rewards included."""
        return self.num_comparisons

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with a row for each response; pandas has to be installed."""
        import pandas

        return pandas.DataFrame(
            [
                {
                    "id": result.id,
                    "source": result.source,
                    "number": result.number,
                    "group": result.group,
                    "response": response,
                    "reward": reward,
                    "rank": rank,
                    "margin": result.margin,
                }
                for result in self.results
                for response, (reward, rank) in enumerate(zip(result.rewards, result.ranks, strict=True))
            ]
        )

    def figures(self) -> dict[str, Any]:
        """Return the plots of a report as matplotlib figures, by name: `margins`, `calibration`, and the
        accuracy by what the pairs differ in.
        """
        from basereward.evaluation.plots import figures

        return figures(self.metrics, self.pairs)

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
