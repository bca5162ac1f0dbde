"""VisualProcessBench (arXiv 2503.10291): steps of solutions to questions about images, labelled by people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from basereward.data.fields import as_list, object_of, prompt_fields, text_of
from basereward.data.reading.row import Row
from basereward.data.steps import step_responses
from basereward.errors import DataError
from basereward.evaluation.benchmarks.benchmark import Scored
from basereward.evaluation.benchmarks.step_scores import RIGHT, WRONG, StepBenchmark, f1, macro_f1
from basereward.evaluation.scored_pairs import CATEGORY
from basereward.stats.metric import Metric, average

RATINGS = {1: 1.0, 0: None, -1: 0.0}
"""Ratings by `process_correctness`: right, neutral (left out), wrong."""

SEPARATOR = "\n\n"


class VisualProcessBench(StepBenchmark):
    """VisualProcessBench: 2,866 solutions of 26,950 steps, 16,585 right, 7,691 wrong and 2,674 neutral.

    A row has `image` (a list of paths), `question`, `data_source`, and in `response` the texts of `steps` and
    their labels in `process_correctness`: 1, -1, or 0 for a neutral one, which counts for nothing. The
    official score is the macro F1 of all other steps.

    Args:
        path: `test.jsonl`, or the directory that it was downloaded to.
        images: The directory that paths of images start from, if they don't lie beside it.
        threshold: The reward above which a step counts as right; 0 is a probability of one half.
    """

    name = "visualprocessbench"
    title = "VisualProcessBench"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "test": ("test.jsonl", "*.jsonl", "data/test-*.parquet")
    }
    size = 2866

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        response = object_of(row, "response")
        steps, labels = (as_list(response.get(name)) for name in ("steps", "process_correctness"))
        for number, label in enumerate(labels):
            if not isinstance(label, int) or label not in RATINGS:
                field = f"response.process_correctness[{number}]"
                raise DataError(f"1, 0 or -1 is needed, not {label!r}", field=field)
        ratings = [RATINGS[label] for label in labels]
        responses, labelled = step_responses(steps, ratings, separator=SEPARATOR, field="response.steps")
        images = [self.image(name) if isinstance(name, str) else name for name in as_list(row.get("image"))]
        return {
            "id": row.get("id"),
            **prompt_fields(text_of(row, "question"), images),
            "responses": responses,
            "ranks": [1 - rating for rating in labelled],
            "meta": {CATEGORY: row.get("data_source") or ""},
        }

    def metrics(self, scored: Scored) -> Mapping[str, Metric]:
        """Return the macro F1, those by source and their mean, and the F1 of each class."""
        names = sorted({item.category for item in scored.items} - {""})
        sources = {
            name: macro_f1(scored, self.threshold, scored.of_category(name), kind="category")
            for name in names
        }
        metrics = {"macro F1": macro_f1(scored, self.threshold), **sources}
        if sources:
            metrics["mean of sources"] = average(list(sources.values()), kind="variant")
        for name in (RIGHT, WRONG):
            metrics[f"F1 of {name} steps"] = f1(scored, {name: 1.0}, self.threshold, kind="variant")
        return metrics
