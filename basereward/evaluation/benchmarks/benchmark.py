"""Base of the benchmarks: rows in their official layout, and the official metric of rewards.

Shapes: K comparisons, N responses of the largest comparison, P pairs.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from basereward import protocols
from basereward.comparison import Comparison
from basereward.data.dataset import FileDataset
from basereward.data.fields import text_of
from basereward.data.reading.paths import local_path
from basereward.data.reading.row import Row
from basereward.errors import DataError
from basereward.evaluation.benchmarks.judge_protocols import Judged, JudgeProtocol
from basereward.evaluation.scored_pairs import CATEGORY, GROUP
from basereward.stats.metric import Metric, Score


@dataclass(frozen=True, slots=True)
class Item:
    """A comparison for the metrics, without its images and texts.

    Attributes:
        id: The comparison's id.
        group: The group of comparisons that are not independent of each other; "" for one that is.
        category: The benchmark's category, "" if it has none.
        ranks: [N] smaller is better; empty where they are not known.
        lengths: [N] characters of each response.
        texts: [N] a number for each response, the same for the same text.
        meta: The comparison's `meta`.
    """

    id: str
    group: str
    category: str
    ranks: tuple[float, ...]
    lengths: tuple[int, ...]
    texts: tuple[int, ...]
    meta: Mapping[str, Any]

    @classmethod
    def of(cls, comparison: Comparison) -> Item:
        """Return the item of a comparison."""
        return cls(
            id=comparison.id,
            group=str(comparison.meta.get(GROUP, "")),
            category=str(comparison.meta.get(CATEGORY, "")),
            ranks=comparison.ranks or (),
            lengths=tuple(map(len, comparison.responses)),
            texts=tuple(map(hash, comparison.responses)),
            meta=comparison.meta,
        )


class Pairs(NamedTuple):
    """Pairs of responses whose order is known.

    Attributes:
        item: [P] number of the comparison.
        better: [P] number of its better response.
        worse: [P] number of its worse response.
        margin: [P] reward of the better one less that of the worse.
    """

    item: NDArray[np.int64]
    better: NDArray[np.int64]
    worse: NDArray[np.int64]
    margin: NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """Scored comparisons of a benchmark as columns.

    Attributes:
        items: The K comparisons.
        rewards: [K, N], NaN where a comparison has fewer responses.
        ranks: [K, N], NaN likewise.
        equal: The score of a pair of equal rewards, where the benchmark counts them as wrong.
    """

    items: Sequence[Item]
    rewards: NDArray[np.float64]
    ranks: NDArray[np.float64]
    equal: float = 0.0

    @classmethod
    def of(
        cls, items: Sequence[Item], rewards: Sequence[Sequence[float] | None], *, equal: float = 0.0
    ) -> Scored:
        """Return the comparisons that have rewards.

        Raises:
            ValueError: When there is not an entry of rewards for each comparison, or a reward a response.
            DataError: When no comparison has rewards.
        """
        if len(items) != len(rewards):
            raise ValueError(f"{len(rewards)} lists of rewards for {len(items)} comparisons")
        kept = [(item, scores) for item, scores in zip(items, rewards, strict=True) if scores is not None]
        if not kept:
            raise DataError(f"no comparison of {len(items)} has been scored")
        size = max(len(item.ranks) for item in items)
        columns = np.full((2, len(kept), size), np.nan)
        for number, (item, scores) in enumerate(kept):
            if len(scores) != len(item.ranks):
                raise ValueError(f"{len(scores)} rewards for the {len(item.ranks)} responses of {item.id}")
            columns[0, number, : len(scores)] = scores
            columns[1, number, : len(scores)] = item.ranks
        return cls([item for item, _ in kept], columns[0], columns[1], equal)

    @cached_property
    def group(self) -> NDArray[np.int64]:
        """[K] number of the group of each comparison."""
        numbers: dict[str, int] = {}
        groups = [numbers.setdefault(item.group, len(numbers)) for item in self.items]
        # A comparison without a group is one of its own.
        return np.array(
            [
                group if item.group else len(numbers) + place
                for place, (item, group) in enumerate(zip(self.items, groups, strict=True))
            ]
        )

    @cached_property
    def pairs(self) -> Pairs:
        """Every pair of responses whose order is known, in the order of the comparisons."""
        is_better = self.ranks[:, :, None] < self.ranks[:, None, :]  # [K, N, N], False where either is NaN
        item, better, worse = np.nonzero(is_better)
        return Pairs(item, better, worse, self.rewards[item, better] - self.rewards[item, worse])

    def of_category(self, *names: str) -> NDArray[np.bool_]:
        """[K] whether a comparison is of one of the categories."""
        return np.array([item.category in names for item in self.items])

    @cached_property
    def categories(self) -> list[str]:
        """The categories that have a pair, sorted."""
        return sorted({self.items[number].category for number in self.pairs.item} - {""})


class Benchmark(protocols.Benchmark, FileDataset):
    """A dataset of comparisons with its official metric.

    A subclass names its files, reads a row in `convert_row`, and gives the metrics in `metrics`.

    Args:
        path: The annotation file; the directory that the benchmark was downloaded to; or its id on the hub.
        images: The directory that paths of images start from, if they don't lie beside the annotation.
    """

    name: ClassVar[str]
    """The name that it is registered under."""
    title: str
    """The name in print."""
    patterns: ClassVar[tuple[str, ...]] = ()
    """Globs of the annotation file in the benchmark's directory; the first that matches counts."""
    size: int | None = None
    """Number of comparisons of the published benchmark."""
    ties: str = "equal rewards count as wrong"
    """How the official metric counts equal rewards."""
    orders_responses: ClassVar[bool] = False
    """Whether the responses stand in an order of the benchmark's own, in which the better one may be either;
    "always the first" is then a baseline."""
    judge_protocols: ClassVar[Mapping[str, JudgeProtocol]] = {}
    """The protocols in print for judges, by their titles."""

    def __init__(self, path: str | Path, *, images: Path | None = None) -> None:
        roots = () if images is None else (str(images),)
        super().__init__(self._annotation_file(local_path(path)), media_roots=roots)
        self.images = self.path.parent if images is None else images

    @abc.abstractmethod
    def metrics(self, scored: Scored) -> Mapping[str, Metric]:
        """Return every metric by its name, the official one first."""

    def comparisons(self) -> Benchmark:
        """Return the comparisons, in the file's order; it is the benchmark itself."""
        return self

    @cached_property
    def items(self) -> list[Item]:
        """The items of all comparisons; the file is read for them once."""
        return [Item.of(comparison) for comparison in self]

    def judge_metrics(self, rewards: Sequence[Sequence[float] | None], judged: Judged) -> dict[str, Metric]:
        """Return a judge's metrics: of its rewards, where answers that contradict each other count half, and
        by each protocol in print, its title after the metric's name and a comma.

        Args:
            rewards: A list of rewards for each comparison, None for one without.
            judged: The verdicts on each comparison by its number.

        Raises:
            DataError: When there is nothing to count.
        """
        return {
            name + suffix: metric
            for suffix, (counted, equal) in self._counted(rewards, judged).items()
            for name, metric in self.metrics(Scored.of(self.items, counted, equal=equal)).items()
        }

    def report_judge(self, rewards: Sequence[Sequence[float] | None], judged: Judged) -> dict[str, Score]:
        """Return a judge's metrics as `report` returns those of rewards."""
        metrics = self.judge_metrics(rewards, judged)
        scores = {}
        for suffix, (counted, _) in self._counted(rewards, judged).items():
            longer, first = self._baselines(counted)
            for name, baseline in longer.items():
                scores[name + suffix] = Score.of(
                    name + suffix, metrics[name + suffix], baseline, first.get(name)
                )
        return scores

    def _counted(
        self, rewards: Sequence[Sequence[float] | None], judged: Judged
    ) -> dict[str, tuple[Sequence[Sequence[float] | None], float]]:
        """Return rewards to count by what their metrics' names end in, and the score of equal ones: the
        judge's own, and for each protocol rewards that are in order where it counts the judge as right.
        """
        counted: dict[str, tuple[Sequence[Sequence[float] | None], float]] = {"": (rewards, 0.5)}
        for title, protocol in self.judge_protocols.items():
            by_protocol = [
                None if score is None else _ordered(item, score)
                for item, score in zip(self.items, protocol(self.items, judged), strict=True)
            ]
            counted[f", {title}"] = (by_protocol, 0.0)
        some = {
            suffix: each for suffix, each in counted.items() if any(scores is not None for scores in each[0])
        }
        if not some:
            raise DataError("no verdict could be read, and no protocol counts that")
        return some

    def without_protocol(self, name: str) -> str:
        """Return the name of a metric without the title of a judge's protocol."""
        for title in self.judge_protocols:
            name = name.removesuffix(f", {title}")
        return name

    def report(self, rewards: Sequence[Sequence[float] | None]) -> dict[str, Score]:
        """Return every metric by its name, the official one first.

        Args:
            rewards: A list of rewards for each comparison, None for one that could not be scored; it is left
                out of every number, and `num` of each says so.

        Raises:
            ValueError: When there is not an entry for each comparison, or a reward a response.
            DataError: When no comparison has been scored.
        """
        metrics = self.metrics(Scored.of(self.items, rewards))
        longer, first = self._baselines(rewards)
        return {
            name: Score.of(name, metric, longer[name], first.get(name)) for name, metric in metrics.items()
        }

    def _baselines(
        self, rewards: Sequence[Sequence[float] | None]
    ) -> tuple[Mapping[str, Metric | None], Mapping[str, Metric]]:
        """Return the metrics of the longer responses and those of the first, of comparisons with rewards."""
        items = [None if scores is None else item for item, scores in zip(self.items, rewards, strict=True)]
        longer = [None if item is None else item.lengths for item in items]
        first = [None if item is None else [1.0, *[0.0] * (len(item.ranks) - 1)] for item in items]
        return (
            self.metrics(Scored.of(self.items, longer)),
            self.metrics(Scored.of(self.items, first)) if self.orders_responses else {},
        )

    def _annotation_file(self, path: Path) -> Path:
        """Return the annotation file of a directory in the official layout; any other path as it is."""
        if path.is_dir():
            for pattern in self.patterns:
                files = sorted(path.glob(pattern))
                if len(files) == 1:
                    return files[0]
                if files:
                    names = ", ".join(file.relative_to(path).as_posix() for file in files)
                    raise DataError(f"holds several files {pattern} ({names}); give the one", file=str(path))
            raise DataError(
                f"no {self.title} is here: it has no {' or '.join(self.patterns)}", file=str(path)
            )
        return path

    def image(self, name: str, *folders: str) -> Path:
        """Return the path of an image that the annotation names; a missing one is an error when it is opened.

        Args:
            name: The path in the annotation.
            folders: Directories below that of the images that it may be relative to, besides that itself;
                in each, its bare file name is looked for too.
        """
        root = self.images
        ends = (name, Path(name).name)
        paths = [root / name, *(root / folder / end for folder in folders for end in ends)]
        return next((path for path in paths if path.exists()), paths[0])


def _ordered(item: Item, score: float) -> list[float]:
    """Return rewards [2] of which the better response has the larger one where the score is 1."""
    return [score if rank == min(item.ranks) else 1 - score for rank in item.ranks]


def texts_of(row: Row, field: str, num: int | None = None) -> list[str]:
    """Return the texts of a list in a row.

    Args:
        row: The row.
        field: Its field.
        num: The required number; None for any number but zero.

    Raises:
        DataError: When it is missing, no list, of another length, or holds what is no text.
    """
    values = row.get(field)
    if not isinstance(values, list | tuple) or not values or num not in (None, len(values)):
        wanted = "texts" if num is None else f"{num} texts"
        given = f"one of {len(values)}" if isinstance(values, list | tuple) else type(values).__name__
        raise DataError(f"a list of {wanted} is needed, not {given}", field=field)
    places = {f"{field}[{number}]": value for number, value in enumerate(values)}
    return [text_of({place: value}, place) for place, value in places.items()]
