"""RewardBench (arXiv 2403.13787): pairs of answers to texts, in four sections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from basereward.data.fields import text_of
from basereward.data.reading.row import Row
from basereward.evaluation.benchmarks.benchmark import Benchmark, Scored
from basereward.evaluation.benchmarks.unit_scores import by_category, pair_accuracy
from basereward.evaluation.scored_pairs import CATEGORY
from basereward.stats.metric import Metric, average

SECTIONS = {
    "Chat": {
        "alpacaeval-easy": 100,
        "alpacaeval-length": 95,
        "alpacaeval-hard": 95,
        "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 154,
        "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 984,  # it has 447; the weight is that of the six code subsets together
        "hep-cpp": 164,
        "hep-go": 164,
        "hep-java": 164,
        "hep-js": 164,
        "hep-python": 164,
        "hep-rust": 164,
    },
}
"""The subsets of each section, and the official weight of each."""


class RewardBench(Benchmark):
    """RewardBench: 2,985 pairs of 23 subsets; the score is the mean of four sections.

    A row has `prompt`, `chosen`, `rejected`, `subset` and `id`. A section's score is the mean of its subsets'
    accuracies with fixed weights, which are the subsets' sizes except for math-prm.

    Args:
        path: The Parquet file of the split `filtered`, or the directory that it was downloaded to.
    """

    name = "rewardbench"
    title = "RewardBench"
    hub_id = "allenai/reward-bench"
    patterns: ClassVar[tuple[str, ...]] = ("data/filtered-*.parquet", "filtered-*.parquet", "*.jsonl")
    size = 2985

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        return {
            "id": row.get("id"),
            "prompt": text_of(row, "prompt"),
            "responses": [text_of(row, "chosen"), text_of(row, "rejected")],
            "ranks": [0, 1],
            "meta": {CATEGORY: text_of(row, "subset")},
        }

    def metrics(self, scored: Scored) -> Mapping[str, Metric]:
        """Return the mean of the sections, each section, each subset, and the accuracy over all pairs."""
        subsets = by_category(scored)
        sections = {}
        for section, weights in SECTIONS.items():
            if there := [name for name in weights if name in subsets]:
                parts = [subsets[name] for name in there]
                sections[section] = average(parts, [weights[name] for name in there], kind="category")
        overall = {"overall": average(list(sections.values()))} if sections else {}
        return {**overall, **sections, **subsets, "all pairs alike": pair_accuracy(scored, kind="variant")}
