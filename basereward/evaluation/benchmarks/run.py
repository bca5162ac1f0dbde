"""Run a benchmark on some models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from basereward.data.first_rows import first_rows
from basereward.errors import DataError
from basereward.evaluation.benchmarks.benchmark import Benchmark as JudgedBenchmark
from basereward.evaluation.benchmarks.published import PublishedScores, published_of
from basereward.evaluation.evaluator import evaluate
from basereward.evaluation.metrics import GAPS
from basereward.evaluation.results import Evaluation, Unread
from basereward.protocols import Benchmark, Scorer
from basereward.stats.metric import Score

if TYPE_CHECKING:
    from basereward.paradigms.verdicts import Verdicts


NO_DIGESTS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Entry:
    """The scores of one model.

    Attributes:
        model: The model's name; for an ensemble's member, the ensemble's name and the member's.
        folder: The model's directory in a report.
        scores: The benchmark's metrics, the official one first; of a judge in whose answers no verdict could
            be read those of the protocols that count that, if there is one.
        evaluation: The rewards, with the metrics that any data has; or why there are none.
        computed: The device and the precision that the rewards were computed on and in.
    """

    model: str
    folder: str
    scores: Mapping[str, Score]
    evaluation: Evaluation | Unread
    computed: Mapping[str, str]

    @property
    def num_unscored(self) -> int:
        """Comparisons that could not be scored."""
        if isinstance(self.evaluation, Unread):
            return self.evaluation.num_comparisons
        return self.evaluation.num_comparisons - len(self.evaluation.results)

    @property
    def num_unread(self) -> int:
        """Rows of the file that are no comparison; not known of a judge that no verdict could be read of."""
        if isinstance(self.evaluation, Unread):
            return 0
        return len(self.evaluation.rejected) - self.num_unscored


@dataclass(frozen=True)
class BenchmarkRun:
    """A benchmark with the scores of some models.

    Attributes:
        name: The benchmark's name, as it is registered.
        title: Its name in print.
        data: The path of its data.
        ties: How its official metric counts equal rewards.
        size: The number of comparisons of the published benchmark, if it is known.
        entries: The models.
        published: Published scores.
        limit: How many of the comparisons were scored, the first ones; None for all.
        remarks: What the benchmark says of its data, such as what of it is not supported.
    """

    name: str
    title: str
    data: str
    ties: str
    size: int | None
    entries: Sequence[Entry]
    published: Sequence[PublishedScores]
    limit: int | None = None
    remarks: Sequence[str] = ()

    @property
    def metric_names(self) -> list[str]:
        """Names of the metrics, in their order."""
        return list(dict.fromkeys(name for entry in self.entries for name in entry.scores))

    def of_metric(self, name: str) -> list[Score]:
        """Return each model's score of a metric."""
        return [entry.scores[name] for entry in self.entries if name in entry.scores]

    @property
    def orders_responses(self) -> bool:
        """Whether there is a baseline of always preferring the first response."""
        scores = (score for entry in self.entries for score in entry.scores.values())
        return any(score.first_baseline is not None for score in scores)

    @property
    def notes(self) -> list[str]:
        """Remarks on the scores: ties, and comparisons that are missing."""
        notes = [f"Ties: {self.ties}.", *self.remarks]
        for entry in self.entries:
            if isinstance(entry.evaluation, Unread):
                notes.append(_note_of(entry.model, entry.evaluation, has_scores=bool(entry.scores)))
                continue
            pairs, unscored = entry.evaluation.metrics, entry.num_unscored
            if entry.evaluation.verdicts:
                share = entry.evaluation.statistics.get("parse_failure_rate", 0.0)
                notes.append(
                    f"{entry.model}: of its answers {100 * share:.1f} % could not be read; where those in "
                    "both orders contradict each other, the pair counts half."
                )
            num, total = pairs.num_reward_ties, pairs.accuracy.num_pairs
            notes.append(f"{entry.model}: {num:,} of {total:,} pairs have equal rewards.")
            if unscored:
                total = entry.evaluation.num_comparisons
                notes.append(
                    f"{entry.model}: {unscored:,} of {total:,} comparisons could not be scored; every number "
                    "is of the others."
                )
        if unread := max(entry.num_unread for entry in self.entries):
            notes.append(f"Rows of the file that could not be read: {unread:,}; they are in no number.")
        num = self.entries[0].evaluation.num_comparisons
        if self.limit is not None:
            notes.append(f"Only the first {num:,} comparisons were scored: no number of the whole benchmark.")
        elif self.size not in (None, num):
            notes.append(f"The file has {num:,} comparisons, the published benchmark {self.size:,}.")
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Return everything for a JSON report."""
        return {
            "benchmark": self.name,
            "title": self.title,
            "data": self.data,
            "num_comparisons": self.entries[0].evaluation.num_comparisons,
            "official_size": self.size,
            "ties": self.ties,
            "remarks": list(self.remarks),
            "models": {
                entry.model: {
                    "scores": {name: score.to_dict() for name, score in entry.scores.items()},
                    "num_unscored": entry.num_unscored,
                    **entry.computed,
                    "metrics": entry.evaluation.to_dict(),
                }
                for entry in self.entries
            },
            "published": [row.to_dict() for row in self.published],
        }


def run_benchmark(
    benchmark: Benchmark,
    models: Mapping[str, Scorer[list[float]]],
    *,
    name: str,
    data: str,
    batch_size: int = 8,
    progress: bool = False,
    gaps: Sequence[float] = GAPS,
    limit: int | None = None,
    digests: Mapping[str, str] = NO_DIGESTS,
) -> BenchmarkRun:
    """Evaluate models on a benchmark.

    Args:
        benchmark: A component of the kind "benchmark".
        models: The models by their names in the report.
        name: The benchmark's name, as it is registered.
        data: The path of its data, for the report.
        batch_size: Comparisons a forward pass; the rewards don't depend on it.
        progress: Whether to show a progress bar on standard error.
        gaps: Rating gaps of the accuracy by gap.
        limit: Comparisons to score, the first ones; None for all.
        digests: The digests of models' directories by the models' names, for the report.

    Raises:
        DataError: When no pair has a known order.
    """
    entries: list[Entry] = []
    num = 0 if limit is None else sum(1 for _ in benchmark.comparisons())
    for model, scorer in models.items():
        verdicts: dict[int, Verdicts] = {}
        try:
            evaluation = evaluate(
                scorer,
                benchmark.comparisons() if limit is None else first_rows(benchmark.comparisons(), limit),
                batch_size=batch_size,
                progress=progress,
                gaps=gaps,
                verdicts=verdicts,
                scores_single=benchmark.scores_single,
            )
        except DataError:
            if not verdicts or not isinstance(benchmark, JudgedBenchmark):
                raise
            folder = _folder(model, {entry.folder for entry in entries})
            entries.append(_unread(model, folder, scorer, benchmark, verdicts))
            continue
        evaluations = {model: evaluation}
        for name_of_member, member in evaluation.members.items():
            # A member that has scored a part of the comparisons only has no official score.
            if len(member.results) == len(evaluation.results):
                evaluations[f"{model}: {name_of_member}"] = member
        for label, item in evaluations.items():
            folder = _folder(label, {entry.folder for entry in entries})
            rewards = [*item.rewards, *[None] * (num - len(item.rewards))]
            if item.verdicts and isinstance(benchmark, JudgedBenchmark):
                scores: Mapping[str, Score] = benchmark.report_judge(rewards, item.verdicts)
            else:
                scores = benchmark.report(rewards)
            digest = {"digest": digests[model]} if model in digests else {}
            facts = {**digest, **scorer.computed, **scorer.facts}
            entries.append(Entry(label, folder, scores, item, facts))
    return BenchmarkRun(
        name=name,
        title=benchmark.title or name,
        data=data,
        ties=benchmark.ties or "as the benchmark has it",
        size=benchmark.size,
        entries=entries,
        published=published_of(name),
        limit=limit,
        remarks=list(benchmark.remarks),
    )


def _unread(
    model: str,
    folder: str,
    scorer: Scorer[list[float]],
    benchmark: JudgedBenchmark,
    verdicts: Mapping[int, Verdicts],
) -> Entry:
    """Return the entry of a judge in whose answers no verdict could be read."""
    num = len(benchmark.items)
    try:
        scores: Mapping[str, Score] = benchmark.report_judge([None] * num, verdicts)
    except DataError:  # no protocol counts that
        scores = {}
    from basereward.paradigms.verdict_tally import NO_VERDICT  # which imports torch

    unread = Unread(NO_VERDICT, num, dict(scorer.statistics), verdicts)
    return Entry(model, folder, scores, unread, scorer.computed)


def _note_of(model: str, unread: Unread, *, has_scores: bool) -> str:
    share = unread.statistics.get("parse_failure_rate", 1.0)
    counted = (
        "the numbers are those of the protocols that count this"
        if has_scores
        else "no protocol of this benchmark counts that, and it has no number"
    )
    unread_share = f"of its answers {100 * share:.1f} % could not be read"
    return f"{model}: {unread_share}, so nothing has rewards; {counted}."


def _folder(model: str, taken: set[str]) -> str:
    """Return a name for a model's directory that is not taken."""
    plain = re.sub(r"[^\w.-]+", "_", model).strip("_.") or "model"
    names = (plain, *(f"{plain}-{number}" for number in range(2, len(taken) + 2)))
    return next(name for name in names if name not in taken)
