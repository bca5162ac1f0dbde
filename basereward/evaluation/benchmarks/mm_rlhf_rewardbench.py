"""MM-RLHF-RewardBench (arXiv 2502.10391): human rankings of answers about images and videos, as pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from basereward.data.fields import text_of, without_marks
from basereward.data.reading.row import Row
from basereward.errors import DataError
from basereward.evaluation.benchmarks.benchmark import Benchmark, Scored
from basereward.evaluation.benchmarks.judge_protocols import R1_REWARD, JudgeProtocol, better_first
from basereward.evaluation.benchmarks.unit_scores import group_accuracy, pair_accuracy
from basereward.evaluation.scored_pairs import CATEGORY, GROUP
from basereward.media.video import Video
from basereward.stats.metric import Metric, average

CATEGORIES = ("mcq", "long", "short", "safety", "video")
"""Words of the images' paths, in the order in which the official script looks for them."""


class MMRLHFRewardBench(Benchmark):
    """MM-RLHF-RewardBench: 170 pairs of 46 questions, in five categories.

    A row has `id`, `image` or `video`, `prompt`, `chosen` and `rejected`. The pairs of one `id` are of one
    ranking: Acc counts pairs, Acc+ the questions all of whose pairs are right.

    Args:
        path: `mm_reward_bench.jsonl`, or the directory it was downloaded to. Images are looked for beside
            it under the path in the row, then under `images/`, there by their bare name too.
        num_frames: Frames of a video, taken evenly from all of its sorted ones.
    """

    name = "mm-rlhf-rewardbench"
    title = "MM-RLHF-RewardBench"
    hub_id = "yifanzhang114/MM-RLHF-RewardBench"
    patterns: ClassVar[tuple[str, ...]] = ("mm_reward_bench.jsonl", "*.jsonl")
    size = 170
    judge_protocols: ClassVar[Mapping[str, JudgeProtocol]] = {R1_REWARD: better_first}

    def __init__(self, path: str | Path, *, images: Path | None = None, num_frames: int = 32) -> None:
        super().__init__(path, images=images)
        if num_frames < 1:
            raise ValueError(f"num_frames is a number of frames >= 1, not {num_frames}")
        self.num_frames = num_frames

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        kind = "video" if row.get("video") else "image"
        path = text_of(row, kind)
        category = next((word for word in CATEGORIES if word in path), None)
        if category is None:
            raise DataError(f"the path {path!r} has none of the words {', '.join(CATEGORIES)}", field=kind)
        place = self.image(path, "images")
        return {
            "id": text_of(row, "id"),
            "prompt": without_marks(text_of(row, "prompt"), 1, f"<{kind}>"),
            **self._media(kind, place),
            "responses": [text_of(row, "chosen"), text_of(row, "rejected")],
            "ranks": [0, 1],
            "meta": {GROUP: row["id"], CATEGORY: category},
        }

    def metrics(self, scored: Scored) -> Mapping[str, Metric]:
        """Return Acc and Acc+, whole and by category."""
        metrics = {"Acc": pair_accuracy(scored), "Acc+": group_accuracy(scored)}
        for metric in (pair_accuracy, group_accuracy):
            name = "Acc" if metric is pair_accuracy else "Acc+"
            for category in CATEGORIES:
                if (where := scored.of_category(category)).any():
                    metrics[f"{name} {category}"] = metric(scored, where, kind="category")
        parts = [metrics[f"Acc {category}"] for category in CATEGORIES if f"Acc {category}" in metrics]
        metrics["Acc, mean of categories"] = average(parts, kind="variant")
        metrics["Acc, equal rewards half"] = pair_accuracy(scored, kind="variant", equal=0.5)
        return metrics

    def _media(self, kind: str, place: Path) -> dict[str, Any]:
        if kind == "image":
            return {"images": [place]}
        video = Video(place)
        # A folder that is not there is missed when it is opened, as an image is.
        return {"videos": [video.sampled(self.num_frames) if place.exists() else video]}
