"""RM-Bench (arXiv 2410.16184): whether a subtle error outweighs a more elaborate style."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from basereward.data.fields import text_of
from basereward.data.reading.row import Row
from basereward.evaluation.benchmarks.benchmark import Benchmark, Scored, texts_of
from basereward.evaluation.scored_pairs import CATEGORY
from basereward.stats.metric import Kind, Metric, average, unit_mean

STYLES = ("concise", "detailed", "markdown")
DOMAINS = ("chat", "math", "code", "safety")
"""Prefixes of the domains' names; "safety-refuse" and "safety-response" are one domain."""


class RMBench(Benchmark):
    """RM-Bench: 1,237 prompts, each with three right and three wrong responses in the same three styles.

    A row has `id`, `prompt`, `domain`, and in `chosen` and `rejected` three texts: concise, detailed,
    detailed with Markdown. Of the nine pairs, three are hard (the right response has the plainer style),
    three normal (both have the same), three easy. The score is the mean of the three, averaged over four
    domains.

    Args:
        path: `total_dataset.json`, or the directory it lies in.
    """

    name = "rm-bench"
    title = "RM-Bench"
    hub_id = "THU-KEG/RM-Bench"
    patterns: ClassVar[tuple[str, ...]] = ("total_dataset.json", "data/total_dataset.json", "data/*.parquet")
    size = 1237

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format: the right responses first."""
        num = len(STYLES)
        return {
            "id": row.get("id"),
            "prompt": text_of(row, "prompt"),
            "responses": [*texts_of(row, "chosen", num), *texts_of(row, "rejected", num)],
            "ranks": [0] * num + [1] * num,
            "meta": {CATEGORY: text_of(row, "domain")},
        }

    def metrics(self, scored: Scored) -> Mapping[str, Metric]:
        """Return the mean over domains, its three difficulties, the domains, and the cells of the matrix."""
        num = len(STYLES)
        # [K, 3, 3]: the style of the right response by that of the wrong one
        won = (scored.rewards[:, :num, None] > scored.rewards[:, None, num:]).astype(np.float64)
        right, wrong = np.indices((num, num))
        levels = {
            "hard": won[:, right < wrong].mean(axis=1),
            "normal": won[:, right == wrong].mean(axis=1),
            "easy": won[:, right > wrong].mean(axis=1),
        }
        whole = np.mean(list(levels.values()), axis=0)  # [K]
        names = np.array([item.category for item in scored.items])
        domains = {name: np.char.startswith(names, name) for name in DOMAINS}
        domains = {name: where for name, where in domains.items() if where.any()}
        metrics = {
            name: _over_domains(scored, unit_scores, domains)
            for name, unit_scores in {"overall": whole, **levels}.items()
            if domains
        }
        metrics |= {name: _share(scored, whole, where, "category") for name, where in domains.items()}
        if len(there := [name for name in scored.categories if name.startswith("safety")]) > 1:
            metrics |= {name: _share(scored, whole, names == name, "category") for name in there}
        everything = np.ones(len(names), dtype=bool)
        for row, style in enumerate(STYLES):
            for column, other in enumerate(STYLES):
                name = f"right {style} over wrong {other}, all prompts alike"
                metrics[name] = _share(scored, won[:, row, column], everything, "variant")
        metrics["all prompts alike"] = _share(scored, whole, everything, "variant")
        return metrics


def _share(
    scored: Scored,
    unit_scores: NDArray[np.float64],  # [K]
    where: NDArray[np.bool_],  # [K]
    kind: Kind,
) -> Metric:
    chance = np.full(int(where.sum()), 0.5)
    return unit_mean(unit_scores[where], scored.group[where], chance, unit="prompts", kind=kind)


def _over_domains(
    scored: Scored,
    unit_scores: NDArray[np.float64],  # [K]
    domains: Mapping[str, NDArray[np.bool_]],
) -> Metric:
    return average([_share(scored, unit_scores, where, "official") for where in domains.values()])
