"""Anybody's own comparisons as a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from basereward.data.formats import DetectedDataset
from basereward.data.reading.row import Row
from basereward.evaluation.benchmarks.benchmark import Benchmark, Scored
from basereward.evaluation.benchmarks.unit_scores import by_category, group_accuracy, pair_accuracy
from basereward.stats.metric import Metric, average


class Comparisons(Benchmark):
    """Your own comparisons, with ranks or ratings, in any format that a row's fields tell.

    `meta.category` of a row gives accuracies by category and their mean. Rows that share `meta.group` (one
    image, one question) are taken to be dependent, in every interval and for the accuracy of whole groups.

    Args:
        path: The file.
    """

    name = "comparisons"
    title = "Comparisons"
    patterns: ClassVar[tuple[str, ...]] = ("*.jsonl", "*.parquet")
    ties: str = "equal rewards count half; pairs that are tied in the data are left out"

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        return self._rows.convert_row(row, directory)

    @cached_property
    def _rows(self) -> DetectedDataset:
        return DetectedDataset(self.path)

    def metrics(self, scored: Scored) -> Mapping[str, Metric]:
        """Return the pair accuracy, that of whole groups, and by category."""
        return order_metrics(scored)


def order_metrics(scored: Scored) -> dict[str, Metric]:
    """Return what can be measured of any comparisons with ranks: pairs, whole groups, categories."""
    metrics = {"pair accuracy": pair_accuracy(scored, equal=0.5)}
    if len(np.unique(scored.group)) < len(scored.pairs.item):
        metrics["whole groups"] = group_accuracy(scored)
    categories = by_category(scored, equal=0.5)
    if len(categories) > 1:
        metrics["mean of categories"] = average(list(categories.values()))
    metrics |= categories
    metrics["pair accuracy, equal rewards wrong"] = pair_accuracy(scored, kind="variant")
    return metrics
