"""Scoring a stream of comparisons, batch by batch, with the next batch prepared while one is scored."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.prepared import Prepared
from basereward.protocols import Result, Scorer
from basereward.reporting.progress import progress_bar


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
    """Base of models and ensembles: a batch is prepared on the CPU, and scored then."""

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

    def score(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8, progress: bool = False
    ) -> list[Result]:
        """Return the rewards of each comparison's responses; higher is better, the scale has no zero.

        Args:
            comparisons: Comparisons, with or without ranks.
            batch_size: Comparisons a forward pass; the rewards don't depend on it.
            progress: Whether to show a progress bar on standard error.

        Raises:
            DataError: When a comparison can't be encoded; `score_stream` yields such errors instead.
        """
        comparisons = list(comparisons)
        rewards = []
        with progress_bar("scoring", len(comparisons), is_shown=progress) as advance:
            for number, (comparison, result) in enumerate(
                self.score_stream(comparisons, batch_size=batch_size)
            ):
                if isinstance(result, DataError):
                    label = comparison.id or (str(number) if len(comparisons) > 1 else "")
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
                results = self.score_prepared(self.prepare_batch(batch))
            yield from zip(batch, results, strict=True)

    def _score_ahead(
        self, comparisons: Sequence[Comparison], batch_size: int
    ) -> Iterator[tuple[Comparison, Result | DataError]]:
        """Score, with a thread that prepares the next batch; only in evaluation mode."""
        batches = [
            comparisons[start : start + batch_size] for start in range(0, len(comparisons), batch_size)
        ]
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="basereward-score") as thread:
            upcoming = thread.submit(self.prepare_batch, batches[0]) if batches else None
            for number, batch in enumerate(batches):
                assert upcoming is not None
                prepared = upcoming.result()
                if number + 1 < len(batches):
                    upcoming = thread.submit(self.prepare_batch, batches[number + 1])
                yield from zip(batch, self.score_prepared(prepared), strict=True)
