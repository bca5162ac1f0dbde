"""RewardBench 2 (arXiv 2506.01937): the best of four responses, and prompts with many right ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from basereward.data.fields import text_of
from basereward.data.reading.row import Row
from basereward.errors import DataError
from basereward.evaluation.benchmarks.benchmark import Benchmark, Scored, texts_of
from basereward.evaluation.scored_pairs import CATEGORY, GROUP
from basereward.stats.metric import Metric, MetricPart, average, unit_mean

TIES = "Ties"
KIND, REFERENCE, TIED = "kind", "ref", "tied"
"""Prefixes of ids of the subset Ties, before ":" and the number that both rows of a prompt share."""

WEIGHTS = {
    "Ties: several right, all above": 0.30,
    "Ties: one right, above": 0.30,
    "Ties: right ones closer to each other": 0.20,
    "Ties: closer, by the worse of both rows": 0.20,
    "Ties: how much closer": 0.01,
}
"""The parts of the score of Ties. They add up to 1.01, as in the official script."""

NUM_DRAWS = 300


class RewardBench2(Benchmark):
    """RewardBench 2: 1,865 rows of six subsets; the score is the mean of the six.

    A row has `id`, `prompt`, `chosen`, `rejected` (lists of texts) and `subset`. In five subsets a row is
    right when its one right response has the highest reward of all four. The subset Ties has each prompt
    twice, with one right response and with several; its score is a weighted sum of whether all right ones are
    above all wrong ones, and whether they lie closer to each other than to the wrong ones.

    Args:
        path: The Parquet file of the split `test`, or the directory that it was downloaded to.
    """

    name = "rewardbench2"
    title = "RewardBench 2"
    hub_id = "allenai/reward-bench-2"
    patterns: ClassVar[tuple[str, ...]] = ("data/test-*.parquet", "*.parquet", "*.jsonl")
    size = 1865
    ties = "of equal highest rewards each has its share; in the subset Ties equal rewards count as wrong"

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format: the right responses first."""
        subset, name = text_of(row, "subset"), row.get("id")
        meta: dict[str, Any] = {CATEGORY: subset}
        if subset == TIES:
            kind, _, number = str(name).partition(":")
            if kind not in (REFERENCE, TIED) or not number:
                raise DataError(f'"ref:NUMBER" or "tied:NUMBER" is needed in Ties, not {name!r}', field="id")
            meta |= {GROUP: f"{TIES}:{number}", KIND: kind}
        chosen, rejected = texts_of(row, "chosen"), texts_of(row, "rejected")
        return {
            "id": name,
            "prompt": text_of(row, "prompt"),
            "responses": chosen + rejected,
            "ranks": [0] * len(chosen) + [1] * len(rejected),
            "meta": meta,
        }

    def metrics(self, scored: Scored) -> Mapping[str, Metric]:
        """Return the mean of the subsets, each subset, and the parts of the score of Ties."""
        subsets: dict[str, Metric] = {}
        parts: dict[str, Metric] = {}
        for name in scored.categories:
            where = np.flatnonzero(scored.of_category(name))
            if name == TIES:
                subsets[name], parts = ties(scored, where)
            else:
                subsets[name] = best_of_n(scored, where)
        return {"overall": average(list(subsets.values())), **subsets, **parts}


def best_of_n(
    scored: Scored,
    where: NDArray[np.int64],  # [U]
) -> Metric:
    """Return how often a right response has the highest reward; of several, the share that is right."""
    rewards, ranks = scored.rewards[where], scored.ranks[where]
    is_right = ranks == 0
    is_top = rewards == np.nanmax(rewards, axis=1, keepdims=True)
    unit_scores = (is_top & is_right).sum(axis=1) / is_top.sum(axis=1)
    chance = is_right.sum(axis=1) / (~np.isnan(ranks)).sum(axis=1)
    return unit_mean(unit_scores, scored.group[where], chance, unit="prompts", kind="category")


def ties(
    scored: Scored,
    where: NDArray[np.int64],  # [U]
) -> tuple[Metric, dict[str, Metric]]:
    """Return the score of the subset Ties, and its parts by name.

    With `above` the lowest reward of a right response less the highest of a wrong one, and `spread` the
    highest reward of a right response less the lowest, the parts are how often `above > 0` in the rows of
    several right responses and in those of one, how often `above > spread` in the former, the same with the
    smaller `above` of a prompt's two rows, and the mean of tanh(that / spread - 1), which only breaks ties
    between models. Chance is the mean of seeded draws of normal rewards.
    """
    kinds = [scored.items[number].meta[KIND] for number in where]
    group = scored.group[where]
    tied = np.array([number for number, kind in enumerate(kinds) if kind == TIED], dtype=np.int64)
    place = {group[number]: number for number, kind in enumerate(kinds) if kind == REFERENCE}
    reference = np.array(list(place.values()), dtype=np.int64)
    both = np.array([number for number in tied if group[number] in place], dtype=np.int64)
    beside = np.array([place[group[number]] for number in both], dtype=np.int64)
    ranks = scored.ranks[where]

    def part_scores(rewards: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        low = np.where(ranks == 0, rewards, np.inf).min(axis=1)
        spread = np.where(ranks == 0, rewards, -np.inf).max(axis=1) - low
        above = low - np.where(ranks == 1, rewards, -np.inf).max(axis=1)
        smaller = np.minimum(above[both], above[beside])
        with np.errstate(divide="ignore", invalid="ignore"):
            closeness = np.nan_to_num(np.tanh(smaller / spread[both] - 1))
        columns = (above[tied] > 0, above[reference] > 0, above[both] > spread[both], smaller > spread[both])
        return [*(column.astype(np.float64) for column in columns), closeness]

    rng = np.random.default_rng(0)
    draws = [part_scores(rng.standard_normal(ranks.shape)) for _ in range(NUM_DRAWS)]
    rows_of = (tied, reference, both, both, both)
    columns = zip(WEIGHTS.items(), part_scores(scored.rewards[where]), rows_of, strict=True)
    parts = {
        name: MetricPart(unit_scores, group[rows], np.mean([draw[number] for draw in draws], axis=0), weight)
        for number, ((name, weight), unit_scores, rows) in enumerate(columns)
        if len(rows)
    }
    metrics = {
        name: Metric((replace(part, weight=1.0),), "prompts", "variant", "bootstrap")
        for name, part in parts.items()
    }
    return Metric(tuple(parts.values()), "rows", "category", "bootstrap"), metrics
