"""Multimodal RewardBench (arXiv 2502.14191): pairs of answers about images, in six areas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from basereward.data.fields import text_of, without_marks
from basereward.data.reading.row import Row
from basereward.errors import DataError
from basereward.evaluation.benchmarks.benchmark import Benchmark, Scored
from basereward.evaluation.benchmarks.judge_protocols import (
    OFFICIAL,
    R1_REWARD,
    JudgeProtocol,
    as_listed,
    better_first,
)
from basereward.evaluation.benchmarks.unit_scores import by_category, pair_accuracy
from basereward.evaluation.scored_pairs import CATEGORY
from basereward.stats.metric import Metric, average

BIAS, TOXICITY, MATH, CODING = "safety/bias", "safety/toxicity", "reasoning/math", "reasoning/coding"

KEYWORDS = {
    "correct": "correctness",
    "prefer": "preference",
    "knowledge": "knowledge",
    "vqa": "VQA",
}
"""Words of `Category` that tell the areas which are not split further; an area with none keeps its name."""

OUTPUTS = ("Output1", "Output2")


class MultimodalRewardBench(Benchmark):
    """Multimodal RewardBench: 5,211 pairs, or 4,711 as released, without the Hateful Memes (toxicity).

    An entry has `ID`, `Text`, `Image`, `Output1`, `Output2`, `Better` ("Output1" or "Output2") and
    `Category`. As in the official script, safety is split into bias (ids that begin with "pairs") and
    toxicity, and reasoning into maths (ids that begin with "math") and coding.

    Two averages are in print under one name: over all pairs (micro: the leaderboard, BaseReward), and over
    seven areas without toxicity (macro: R1-Reward and those who quote it).

    Args:
        path: `all_data.json`, as the official download script writes it, or the directory it lies in; or the
            Parquet copy on the hub.
    """

    name = "multimodal-rewardbench"
    title = "Multimodal RewardBench"
    patterns: ClassVar[tuple[str, ...]] = ("all_data.json", "data/all_data.json", "data/test-*.parquet")
    orders_responses: ClassVar[bool] = True
    judge_protocols: ClassVar[Mapping[str, JudgeProtocol]] = {OFFICIAL: as_listed, R1_REWARD: better_first}

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the entry in our own format."""
        name, better = text_of(row, "ID"), row.get("Better")
        if better not in OUTPUTS:
            raise DataError(f'"Output1" or "Output2" is needed, not {better!r}', field="Better")
        if not row.get("Text"):
            raise DataError("is empty; the official scripts/0_download_data.py fills it in", field="Text")
        image = row.get("Image")
        if image is None:
            raise DataError("is missing", field="Image")
        return {
            "id": name,
            "prompt": without_marks(text_of(row, "Text"), 1),
            "images": [self.image(image, "data") if isinstance(image, str) else image],
            "responses": [text_of(row, output) for output in OUTPUTS],
            "ranks": [int(output != better) for output in OUTPUTS],
            "meta": {CATEGORY: area(text_of(row, "Category"), name)},
        }

    def metrics(self, scored: Scored) -> Mapping[str, Metric]:
        """Return the micro and macro averages with and without toxicity, and each area."""
        areas = by_category(scored)
        seven = [part for name, part in areas.items() if name != TOXICITY]
        metrics = {"micro": pair_accuracy(scored)}
        if seven:
            metrics[f"macro of {len(seven)}"] = average(seven)
        metrics |= areas
        is_clean = ~scored.of_category(TOXICITY)
        if is_clean.any():
            metrics["micro without toxicity"] = pair_accuracy(scored, is_clean, kind="variant")
        six = _joined(scored, {BIAS: "safety", TOXICITY: "safety", MATH: "reasoning", CODING: "reasoning"})
        metrics[f"macro of {len(six)}, as the leaderboard's columns"] = average(six, kind="variant")
        if TOXICITY in areas:
            with_toxicity = _joined(scored, {BIAS: "safety", TOXICITY: "safety"})
            metrics[f"macro of {len(with_toxicity)} with toxicity"] = average(with_toxicity, kind="variant")
        metrics["micro, equal rewards right (IXC's script)"] = pair_accuracy(
            scored, kind="variant", equal=1.0
        )
        return metrics


def area(category: str, name: str) -> str:
    """Return the area of an entry, from its category and its id."""
    lower = category.lower()
    if "safety" in lower:
        return BIAS if name.lower().startswith("pairs") else TOXICITY
    if "reasoning" in lower:
        return MATH if name.lower().startswith("math") else CODING
    return next((area for word, area in KEYWORDS.items() if word in lower), category)


def _joined(scored: Scored, names: Mapping[str, str]) -> list[Metric]:
    """Return the accuracy of each area, with areas of one new name as one."""
    column = np.array([names.get(item.category, item.category) for item in scored.items])
    return [pair_accuracy(scored, column == name) for name in np.unique(column)]
