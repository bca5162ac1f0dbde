"""Scoring a stream of comparisons, batch by batch, with the next batch prepared while one is scored."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any, overload

from basereward.comparison import Comparison
from basereward.data.formats import comparisons_of
from basereward.errors import ConfigError, DataError
from basereward.prepared import UNKNOWN, Prepared
from basereward.protocols import Result, Scorer
from basereward.reporting.progress import progress_bar
from basereward.scoring.batching import MicroBatchLimits, micro_batches


class EnsembleRewards(list[float]):
    """The rewards [n] of a comparison's responses, with the members' rewards.

    Args:
        rewards: [n].
        members: The rewards [n] of each member that scored the comparison.
        disagreement: [n] how far these members are apart: the standard deviation over them, each less its
            mean and over its scale where the ensemble has measured them, else as they are; empty for one
            member.
    """

    def __init__(
        self, rewards: Iterable[float], members: Mapping[str, list[float]], disagreement: list[float]
    ) -> None:
        super().__init__(rewards)
        self.members = dict(members)
        self.disagreement = disagreement


class BatchScorer(Scorer[Result], abc.ABC):
    """Base of models and ensembles: a batch is prepared on the CPU, and scored then.

    Attributes:
        num_tokens: Tokens of the forward passes so far, padding and written ones left out.
        limits: What fits a forward pass; a batch over it takes several. None: every batch fits.
        num_workers: Threads that prepare the next batch of a list.
    """

    num_tokens: int = 0
    limits: MicroBatchLimits | None = None
    num_workers: int = 1

    @abc.abstractmethod
    def prepare_batch(self, batch: Sequence[Comparison]) -> list[Prepared[Any] | DataError]:
        """Return each comparison ready for the device, or its error; called in a thread."""

    @abc.abstractmethod
    def score_prepared(self, batch: Sequence[Prepared[Any] | DataError]) -> list[Result | DataError]:
        """Return the result of each comparison of a batch, or the error that kept it from having one."""

    @property
    def is_training(self) -> bool:
        """Whether the model is in training mode, in which no batch may be prepared ahead."""
        return False

    def evaluating(self) -> AbstractContextManager[None]:
        """Switch to evaluation mode, and back."""
        return nullcontext()

    @overload
    def score(
        self, comparisons: Comparison | Mapping[str, Any], *, batch_size: int = 8, progress: bool = False
    ) -> Result: ...

    @overload
    def score(
        self,
        comparisons: Iterable[Comparison | Mapping[str, Any]],
        *,
        batch_size: int = 8,
        progress: bool = False,
    ) -> list[Result]: ...

    def score(
        self,
        comparisons: Comparison | Mapping[str, Any] | Iterable[Comparison | Mapping[str, Any]],
        *,
        batch_size: int = 8,
        progress: bool = False,
    ) -> Result | list[Result]:
        """Return the rewards of each comparison's responses; higher is better, the scale has no zero.

        Args:
            comparisons: Comparisons, with or without ranks, or rows in any layout that files may have, such
                as {"prompt", "responses", "images"}; or one, whose rewards alone are returned.
            batch_size: Comparisons a forward pass; the rewards don't depend on it.
            progress: Whether to show a progress bar on standard error.

        Raises:
            DataError: When a comparison can't be encoded; `score_stream` yields such errors instead.
        """
        if isinstance(comparisons, Comparison | Mapping):
            return self.score([comparisons], batch_size=batch_size, progress=progress)[0]
        rows = list(comparisons_of(comparisons))
        rewards = []
        with progress_bar("scoring", len(rows), is_shown=progress) as advance:
            for number, (comparison, result) in enumerate(self.score_stream(rows, batch_size=batch_size)):
                if isinstance(result, DataError):
                    label = comparison.id or (str(number) if len(rows) > 1 else "")
                    raise comparison.place.locate(result).at(file=f"comparison {label}" if label else None)
                rewards.append(result)
                advance()
        return rewards

    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8
    ) -> Iterator[tuple[Comparison, Result | DataError]]:
        """Yield each comparison with its rewards, or with the error that kept it from being scored.

        The order is kept and memory stays flat, so the input may be endless. Of a list, a thread opens the
        images of the next batch and tokenizes it while one is scored.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is a number of comparisons >= 1, not {batch_size}")
        if isinstance(comparisons, Sequence) and not self.is_training:
            yield from self._score_ahead(comparisons, batch_size)
            return
        waiting = iter(comparisons)
        while batch := list(islice(waiting, batch_size)):
            with self.evaluating():
                results = self._score_within_limits(self.prepare_batch(batch))
            yield from zip(batch, results, strict=True)

    def _score_ahead(
        self, comparisons: Sequence[Comparison], batch_size: int
    ) -> Iterator[tuple[Comparison, Result | DataError]]:
        """Score, with threads that prepare the next batch; only in evaluation mode."""
        starts = range(0, len(comparisons), batch_size)
        with ThreadPoolExecutor(self.num_workers, thread_name_prefix="basereward-score") as threads:

            def prepare(start: int) -> list[Future[list[Prepared[Any] | DataError]]]:
                batch = comparisons[start : start + batch_size]
                size = math.ceil(len(batch) / self.num_workers)
                parts = [batch[first : first + size] for first in range(0, len(batch), size)]
                return [threads.submit(self.prepare_batch, part) for part in parts]

            upcoming = prepare(0) if comparisons else []
            for start in starts:
                prepared = [item for part in upcoming for item in part.result()]
                upcoming = prepare(start + batch_size) if start + batch_size < len(comparisons) else []
                batch = comparisons[start : start + batch_size]
                yield from zip(batch, self._score_within_limits(prepared), strict=True)

    def _score_within_limits(self, batch: Sequence[Prepared[Any] | DataError]) -> list[Result | DataError]:
        """Score a batch in as many forward passes as the limits ask for."""
        sizes = [UNKNOWN if isinstance(item, DataError) else item.size for item in batch]
        self.num_tokens += sum(size.tokens for size in sizes)
        if self.limits is None:
            return self.score_prepared(batch)
        results: dict[int, Result | DataError] = {}
        for numbers in micro_batches(sizes, self.limits):
            scored = self.score_prepared([batch[number] for number in numbers])
            results.update(zip(numbers, scored, strict=True))
        return [results[number] for number in range(len(batch))]
