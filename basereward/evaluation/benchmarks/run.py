"""A benchmark held against some models: the numbers together, as JSON, Markdown and HTML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from basereward.evaluation.benchmarks.published import PublishedScores, published_of
from basereward.evaluation.evaluator import evaluate
from basereward.evaluation.metrics import GAPS

if TYPE_CHECKING:
    from basereward.evaluation.results import Evaluation
    from basereward.scoring.ordered import Scorer
    from basereward.stats.metric import Score


@dataclass(frozen=True)
class Entry:
    """What one model has scored.

    Attributes:
        model: Its name; that of an ensemble's member follows the ensemble's.
        folder: Its directory in a report.
        scores: The benchmark's metrics, the official one first.
        evaluation: The rewards, and what is known of them on any data.
    """

    model: str
    folder: str
    scores: Mapping[str, Score]
    evaluation: Evaluation

    @property
    def num_unscored(self) -> int:
        """Comparisons that could not be scored."""
        return self.evaluation.num_comparisons - len(self.evaluation.results)

    @property
    def num_unread(self) -> int:
        """Rows of the file that are no comparison."""
        return len(self.evaluation.rejected) - self.num_unscored


@dataclass(frozen=True)
class BenchmarkRun:
    """The models that a benchmark was held against.

    Attributes:
        name: The benchmark's, as it is registered.
        title: Its name in print.
        data: Where it was read.
        ties: What its official metric does with equal rewards.
        size: How many comparisons the published benchmark has, if that is known.
        entries: The models.
        published: What is in print.
    """

    name: str
    title: str
    data: str
    ties: str
    size: int | None
    entries: Sequence[Entry]
    published: Sequence[PublishedScores]

    @property
    def metric_names(self) -> list[str]:
        """Names of the metrics, in their order."""
        return list(dict.fromkeys(name for entry in self.entries for name in entry.scores))

    def of_metric(self, name: str) -> list[Score]:
        """Return each model's score of a metric."""
        return [entry.scores[name] for entry in self.entries if name in entry.scores]

    @property
    def notes(self) -> list[str]:
        """What has to be said before the numbers: ties, and comparisons that are missing."""
        found = [f"Ties: {self.ties}."]
        for entry in self.entries:
            pairs, unscored = entry.evaluation.metrics, entry.num_unscored
            num, total = pairs.num_reward_ties, pairs.accuracy.num_pairs
            found.append(f"{entry.model}: {num:,} of {total:,} pairs have equal rewards.")
            if unscored:
                total = entry.evaluation.num_comparisons
                found.append(
                    f"{entry.model}: {unscored:,} of {total:,} comparisons could not be scored; every number "
                    "is of the others."
                )
        if unread := self.entries[0].num_unread:
            found.append(f"Rows of the file that could not be read: {unread:,}; they are in no number.")
        num = self.entries[0].evaluation.num_comparisons
        if self.size not in (None, num):
            found.append(f"The file has {num:,} comparisons, the published benchmark {self.size:,}.")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything for a JSON report."""
        return {
            "benchmark": self.name,
            "title": self.title,
            "data": self.data,
            "num_comparisons": self.entries[0].evaluation.num_comparisons,
            "official_size": self.size,
            "ties": self.ties,
            "models": {
                entry.model: {
                    "scores": {name: score.to_dict() for name, score in entry.scores.items()},
                    "num_unscored": entry.num_unscored,
                    "metrics": entry.evaluation.to_dict(),
                }
                for entry in self.entries
            },
            "published": [row.to_dict() for row in self.published],
        }


def run_benchmark(
    benchmark: Any,
    models: Mapping[str, Scorer],
    *,
    name: str,
    data: str,
    batch_size: int = 8,
    progress: bool = False,
    gaps: Sequence[float] = GAPS,
) -> BenchmarkRun:
    """Hold a benchmark against models.

    Args:
        benchmark: A component of the kind "benchmark".
        models: By the names that the report calls them.
        name: The benchmark's name, as it is registered.
        data: What the report says of where it was read.
        batch_size: Comparisons a forward pass; the rewards don't depend on it.
        progress: Whether to show a progress bar on standard error.
        gaps: Differences of ratings to tell accuracy by.

    Raises:
        DataError: When no pair can be judged.
    """
    entries: list[Entry] = []
    for model, scorer in models.items():
        evaluation = evaluate(
            scorer, benchmark.comparisons(), batch_size=batch_size, progress=progress, gaps=gaps
        )
        found = {model: evaluation}
        for member, own in evaluation.members.items():
            # One that was asked about a part only has no official number.
            if len(own.results) == len(evaluation.results):
                found[f"{model}: {member}"] = own
        for label, own in found.items():
            folder = _folder(label, {entry.folder for entry in entries})
            entries.append(Entry(label, folder, benchmark.report(own.rewards), own))
    return BenchmarkRun(
        name=name,
        title=getattr(benchmark, "title", name),
        data=data,
        ties=getattr(benchmark, "ties", "as the benchmark has it"),
        size=getattr(benchmark, "size", None),
        entries=entries,
        published=published_of(name),
    )


def _folder(model: str, taken: set[str]) -> str:
    """Return a name for a model's directory that no other has."""
    plain = re.sub(r"[^\w.-]+", "_", model).strip("_.") or "model"
    names = (plain, *(f"{plain}-{number}" for number in range(2, len(taken) + 2)))
    return next(name for name in names if name not in taken)
