"""VideoRewardBench (arXiv 2509.00484): pairs of answers about videos, in five areas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from basereward.data.fields import name_of, single_column, text_of, without_marks
from basereward.data.reading.row import Row
from basereward.errors import DataError
from basereward.evaluation.benchmarks.benchmark import Benchmark, Scored
from basereward.evaluation.benchmarks.unit_scores import by_category, pair_accuracy
from basereward.evaluation.scored_pairs import CATEGORY, GROUP
from basereward.message import VIDEO_PLACEHOLDER
from basereward.stats.metric import Metric, average

AREAS = {
    "long": "long-form perception",
    "short": "short-form perception",
    "knowledge": "knowledge",
    "reasoning": "reasoning",
    "safety": "safety",
}
"""Words of a row's area, in the order in which they are looked for, and the areas of the paper."""

QUESTION = ("question", "prompt", "query")
VIDEO = ("video", "video_path")
AREA = ("category", "dimension", "task")
"""The columns of question, video and area, of each of which a row has one. Their names are not certain: no
public script reads the data, and the data itself was not at hand."""


class VideoRewardBench(Benchmark):
    """VideoRewardBench: 1,563 pairs of 1,482 videos; overall accuracy counts all pairs alike.

    A row has a question (`question`, `prompt` or `query`), a video (`video` or `video_path`), `chosen`,
    `rejected` and an area (`category`, `dimension` or `task`): long-form perception 283, short-form
    perception 413, knowledge 238, reasoning 278, safety 351. Pairs of one video count as dependent.

    Args:
        path: The annotation file, or the directory that it was downloaded to. Videos are looked for beside it
            under the path in the row, then under `videos/`, there by their bare name too.
        images: The directory that paths of videos start from, if they don't lie beside the annotation.
    """

    name = "videorewardbench"
    title = "VideoRewardBench"
    patterns: ClassVar[tuple[str, ...]] = ("*.jsonl", "data/test-*.parquet", "*.parquet", "*.json")
    size = 1563

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        column = single_column(row, *AREA)
        area = text_of(row, column).lower()
        category = next((name for word, name in AREAS.items() if word in area), None)
        if category is None:
            raise DataError(f"{row[column]!r} has none of the words {', '.join(AREAS)}", field=column)
        video: Any = row[single_column(row, *VIDEO)]
        return {
            "id": name_of(row, "id"),
            "prompt": without_marks(text_of(row, single_column(row, *QUESTION)), 1, VIDEO_PLACEHOLDER),
            "videos": [self.image(video, "videos") if isinstance(video, str) else video],
            "responses": [text_of(row, "chosen"), text_of(row, "rejected")],
            "ranks": [0, 1],
            "meta": {CATEGORY: category, **({GROUP: video} if isinstance(video, str) else {})},
        }

    def metrics(self, scored: Scored) -> Mapping[str, Metric]:
        """Return the accuracy over all pairs, the mean of the areas, and each area."""
        areas = by_category(scored)
        metrics = {"overall": pair_accuracy(scored)}
        if areas:
            metrics[f"macro of {len(areas)}"] = average(list(areas.values()), kind="variant")
        return metrics | areas
