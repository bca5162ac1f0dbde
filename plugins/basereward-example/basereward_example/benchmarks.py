"""Benchmarks: comparisons with an official metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from basereward.data.fields import text_of
from basereward.evaluation.benchmarks.benchmark import Benchmark
from basereward.evaluation.benchmarks.unit_scores import by_category, pair_accuracy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from basereward.data.reading.row import Row
    from basereward.evaluation.benchmarks.benchmark import Scored
    from basereward.stats.metric import Metric


class Duels(Benchmark):
    """Pairs of answers: how often the better one has the higher reward, in all and by topic.

    A row is `{"question": TEXT, "better": TEXT, "worse": TEXT, "topic": TEXT}`.

    Args:
        path: The file, or the directory it lies in.
    """

    name = "example-duels"
    title = "Duels"
    patterns: ClassVar[tuple[str, ...]] = ("duels.jsonl",)

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in BaseReward's own format."""
        return {
            "prompt": text_of(row, "question"),
            "responses": [text_of(row, "better"), text_of(row, "worse")],
            "ranks": [0, 1],
            "meta": {"category": text_of(row, "topic")},
        }

    def metrics(self, scored: Scored) -> Mapping[str, Metric]:
        """Return every metric by its name, the official one first."""
        return {"accuracy": pair_accuracy(scored), **by_category(scored)}
