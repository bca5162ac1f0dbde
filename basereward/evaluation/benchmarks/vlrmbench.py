"""VLRMBench (arXiv 2503.07478): which steps of a solution are wrong, in eight ways of being so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from basereward.data.fields import as_list, name_of, prompt_fields, text_of
from basereward.data.reading.row import Row
from basereward.data.steps import step_responses
from basereward.errors import DataError
from basereward.evaluation.benchmarks.benchmark import Scored
from basereward.evaluation.benchmarks.parts import PART
from basereward.evaluation.benchmarks.step_scores import RIGHT, WRONG, StepBenchmark, f1, share_of_right
from basereward.evaluation.scored_pairs import CATEGORY, GROUP
from basereward.stats.metric import Metric, average

STEPS = (
    "step_correctness",
    "redundant_det",
    "most_confidence",
    "existence_hallucination",
    "attribute_hallucination",
    "detail_error",
    "location_error",
    "image_ref_error",
)
"""Tasks with a label a step; of `redundant_det` it says that the step is redundant."""

OTHERS = ("multi_solution", "foresight", "error_reason_analysis", "error_correction")

STEP = re.compile(r"^STEP\d+:", re.MULTILINE)

IMAGES = "meta_data/Image"


def _globs(task: str) -> tuple[str, ...]:
    return (f"benchmark_data/{task}.jsonl", f"{task}.jsonl")


class VLRMBench(StepBenchmark):
    """VLRMBench: the eight of its twelve tasks that have a label for each step.

    A row has `id`, `image` (a list of paths), `question`, in `reasoning_error` the solution as one text whose
    steps begin with "STEP1:" and so on, and in `task_gt` 1 for each wrong step and 0 for each right one. The
    official score of a task is the F1 of wrong steps times the share of right ones, plus the F1 of right
    steps times the share of wrong ones: the rarer class weighs more, unlike in what is elsewhere called a
    weighted F1.

    The tasks multi_solution, foresight, error_reason_analysis and error_correction ask for scores, for yes or
    no, and for texts; their rows are counted, and not read.

    Args:
        path: The repository's directory or its `benchmark_data`, with the files of some or all tasks; or the
            file of one task.
        images: The directory that paths of images start from; if not given, `meta_data/Image` in `path`.
        threshold: The reward above which a step counts as right; 0 is a probability of one half.
    """

    name = "vlrmbench"
    title = "VLRMBench"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {task: _globs(task) for task in STEPS}
    unsupported_parts: ClassVar[Mapping[str, tuple[str, ...]]] = {task: _globs(task) for task in OTHERS}
    why_unsupported = "they have no label for each step"

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        steps = _steps(row)
        labels = as_list(row.get("task_gt"))
        for number, label in enumerate(labels):
            if not isinstance(label, int) or label not in (0, 1):
                raise DataError(f"0 or 1 is needed, not {label!r}", field=f"task_gt[{number}]")
        ratings = [1.0 - label for label in labels]
        responses, labelled = step_responses(steps, ratings, separator="", field="reasoning_error")
        images = [
            self.image(name, IMAGES, f"../{IMAGES}") if isinstance(name, str) else name
            for name in as_list(row.get("image"))
        ]
        name = name_of(row, "id")
        return {
            "id": name,
            **prompt_fields(text_of(row, "question"), images),
            "responses": responses,
            "ranks": [1 - rating for rating in labelled],
            # The tasks share questions and solutions.
            "meta": {CATEGORY: str(row[PART]), **({GROUP: name} if name else {})},
        }

    def metrics(self, scored: Scored) -> Mapping[str, Metric]:
        """Return the mean of the tasks' weighted F1, each of them, and the F1 of each class."""
        tasks, classes = {}, {}
        for task in [task for task in STEPS if any(item.category == task for item in scored.items)]:
            where = scored.of_category(task)
            right = share_of_right(scored, where)
            weights = {RIGHT: 1 - right, WRONG: right}
            tasks[task] = f1(scored, weights, self.threshold, where, kind="category")
            for name in (RIGHT, WRONG):
                metric = f1(scored, {name: 1.0}, self.threshold, where, kind="variant")
                classes[f"{task}, F1 of {name} steps"] = metric
        return {f"mean of {len(tasks)} tasks": average(list(tasks.values())), **tasks, **classes}


def _steps(row: Row) -> list[str]:
    """Return the steps of a solution, which together are the whole of it.

    Raises:
        DataError: When it doesn't begin with a step.
    """
    solution = row.get("reasoning_error")
    if isinstance(solution, list | tuple):
        return list(solution)
    text = text_of(row, "reasoning_error").lstrip()
    starts = [mark.start() for mark in STEP.finditer(text)]
    if not starts or starts[0]:
        raise DataError('a solution begins with "STEP1:"', field="reasoning_error")
    return [text[start:stop] for start, stop in zip(starts, [*starts[1:], len(text)], strict=True)]
