"""VL-RewardBench (arXiv 2411.17451): pairs of answers about images, in three groups."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from basereward.data.fields import text_of, without_marks
from basereward.data.reading.row import Row
from basereward.errors import DataError
from basereward.evaluation.benchmarks.benchmark import Benchmark, Scored, texts_of
from basereward.evaluation.benchmarks.judge_protocols import OFFICIAL as OFFICIAL_PROTOCOL
from basereward.evaluation.benchmarks.judge_protocols import (
    R1_REWARD,
    JudgeProtocol,
    better_first,
    by_majority,
)
from basereward.evaluation.benchmarks.unit_scores import pair_accuracy
from basereward.evaluation.scored_pairs import CATEGORY, GROUP
from basereward.stats.metric import Kind, Metric, average

GROUPS = ("general", "hallucination", "reasoning")

RANKS = "human_ranking"

OFFICIAL = {
    "hallucination": "hallucination",
    "RLAIF": "hallucination",
    "RLHF": "hallucination",
    "mathverse": "reasoning",
    "mmmu": "reasoning",
}
"""Groups by what an id begins with; all else is general."""


class VLRewardBench(Benchmark):
    """VL-RewardBench: 1,250 pairs; 25 ids occur twice, with other responses, and both count.

    A row has `id`, `query`, two texts in `response`, `image`, and `human_ranking`, which holds the ranks of
    the responses: [0, 1] where the first is better. Three groupings of the rows are in print; the official
    one has 183 general, 749 hallucination and 318 reasoning rows.

    Args:
        path: The Parquet file of the split `test`, or the directory that it was downloaded to.
    """

    name = "vl-rewardbench"
    title = "VL-RewardBench"
    patterns: ClassVar[tuple[str, ...]] = ("data/test-*.parquet", "*.parquet", "*.jsonl")
    size = 1250
    orders_responses: ClassVar[bool] = True
    judge_protocols: ClassVar[Mapping[str, JudgeProtocol]] = {
        OFFICIAL_PROTOCOL: by_majority,
        R1_REWARD: better_first,
    }

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        name = text_of(row, "id")
        ranks = row.get(RANKS)
        if ranks not in ([0, 1], [1, 0]):
            raise DataError(f"ranks of two responses are needed, [0, 1] or [1, 0], not {ranks}", field=RANKS)
        image: Any = row.get("image")
        if image is None:
            raise DataError("is missing", field="image")
        return {
            "id": name,
            "prompt": without_marks(text_of(row, "query"), 1),
            "images": [self.image(image, "images") if isinstance(image, str) else image],
            "responses": texts_of(row, "response", 2),
            "ranks": ranks,
            "meta": {GROUP: name, CATEGORY: official_group(name)},
        }

    def metrics(self, scored: Scored) -> Mapping[str, Metric]:
        """Return overall and macro accuracy, the official groups, and the groupings of others."""
        official = _by_group(scored, [item.category for item in scored.items], "category")
        metrics = {"overall": pair_accuracy(scored), "macro": average(list(official.values())), **official}
        for whose, grouping in (("R1-Reward's", r1_group), ("UnifiedReward-Think's", unified_group)):
            parts = _by_group(scored, [grouping(item.id) for item in scored.items], "variant")
            metrics[f"macro, {whose} groups"] = average(list(parts.values()), kind="variant")
            metrics |= {f"{name}, {whose} groups": part for name, part in parts.items()}
        first = np.zeros(len(scored.items), dtype=bool)
        first[np.unique(scored.group, return_index=True)[1]] = True
        metrics["overall, first of each id"] = pair_accuracy(scored, first, kind="variant")
        return metrics


def official_group(name: str) -> str:
    """Return the group of an id by the benchmark's own script."""
    return OFFICIAL.get(re.split("[_-]", name)[0], "general")


def r1_group(name: str) -> str:
    """Return the group that R1-Reward's script gives an id.

    It looks for "rlhf" and "rlaif" in lower case, where the ids have them in upper case; those rows become
    general, which makes 484 general, 448 hallucination and 318 reasoning rows. BaseReward's published groups
    are these.
    """
    if "mmmu" in name or "mathverse" in name:
        return "reasoning"
    is_found = any(word in name for word in ("hallucination", "rlhf", "rlaif"))
    return "hallucination" if is_found else "general"


def unified_group(name: str) -> str:
    """Return the group that UnifiedReward-Think's scripts give an id: POVID's become general, 631 in all."""
    group = official_group(name)
    return "general" if name.startswith("hallucination") else group


def _by_group(scored: Scored, names: list[str], kind: Kind) -> dict[str, Metric]:
    column = np.array(names)
    masks = {group: column == group for group in GROUPS}
    return {name: pair_accuracy(scored, where, kind=kind) for name, where in masks.items() if where.any()}
