"""Contracts of the components around models: ensemblers, datasets, benchmarks and writers."""

from __future__ import annotations

from abc import abstractmethod
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from basereward.errors import DataError
from basereward.protocols.defaults import NO_FACTS, NONE, default

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from basereward.comparison import Comparison
    from basereward.stats.metric import Score
    from basereward.writers.request import Completion, Request


class Ensembler:
    """Rewards [M, N] of members in, rewards [N] out."""

    learns: bool = False
    """Whether it has to be fitted; `adopt` sets it for a class with a `fit` of its own."""
    is_comparative: bool = False
    """Whether a response's reward depends on the responses beside it."""
    is_scale_free: bool = False
    """Whether a member with larger rewards counts for no more than others."""
    unit: str | None = None
    """The unit of its rewards where it is on none of the members' scales, such as "rank"."""
    reason_for_nan: str = ""
    """Why a reward may be not-a-number, if it ever is."""

    @abstractmethod
    def __call__(self, members: Tensor, comparisons: Sequence[Comparison]) -> Tensor:
        """Return the rewards [N] of the members' rewards [M, N]."""

    def fit(self, members: Tensor, comparisons: Sequence[Comparison]) -> None:
        """Learn from the members' rewards [M, N] of comparisons whose ranks are known."""

    def state(self) -> dict[str, Any]:
        """Return the learned values, for JSON."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the learned values."""

    def route(self, comparison: Comparison, reads_images: Sequence[bool]) -> Sequence[bool]:
        """Return which members [M] score a comparison; the rewards of the others are not-a-number."""
        return [True] * len(reads_images)


class Dataset:
    """Files in, comparisons out, in the same order every time."""

    on_bad_row: Literal["skip", "fail"] = "skip"
    """Whether a bad row is listed in `rejected` or raised."""
    rejected: Sequence[DataError] = ()
    """The bad rows that the latest iteration has skipped."""
    unread_splits: str = ""
    """A sentence for the user on data beside the files that is not read; empty if there is none."""
    files: Sequence[Path] = ()
    varies_by_epoch: bool = False
    """Whether `set_epoch` changes the rows; `adopt` sets it for a class with a `set_epoch` of its own."""
    published_responses: int | None = None
    """Responses of a comparison of the data set as it was published; None where only its rows can tell."""

    @classmethod
    def responses_of(cls, options: Mapping[str, Any]) -> int | None:
        """Return the responses of a published comparison, as it is read with such options."""
        return cls.published_responses

    @default
    def num_rows(self) -> int | None:
        """About how many rows there are; None where that is not cheap to know."""
        return None

    @abstractmethod
    def __iter__(self) -> Iterator[Comparison]: ...

    def read(self) -> Iterator[Comparison | DataError]:
        """Yield each row as a comparison, or as the error that says why it is none."""
        yield from self

    def probe(self, num: int) -> Iterator[Comparison | DataError]:
        """Yield about as many items of `read` as asked for, to see what the data is like."""
        return islice(self.read(), num)

    def count(self) -> int:
        """Return how many items `read` yields."""
        return sum(1 for _ in self.read())

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose rows are read next."""


class Benchmark:
    """A published test set with its official metrics."""

    title: str = ""
    """Its name in print; empty for the name that it is registered under."""
    size: int | None = None
    """How many comparisons were published."""
    ties: str = ""
    """What the official metric does with equal rewards."""
    hub_id: str = ""
    """Its id on the hub, from which it is read where no path is given; empty where it isn't there."""

    is_absolute: bool = False
    """Whether its metric reads rewards themselves, and not their differences within a comparison alone."""
    scores_single: bool = False
    """Whether comparisons of one response count too, as where each response is a step with a label."""

    @default
    def remarks(self) -> Sequence[str]:
        """Sentences on its data for a report, such as what of it is not supported; asked after scoring."""
        return ()

    @abstractmethod
    def comparisons(self) -> Iterable[Comparison]:
        """Return the comparisons, in the same order every time."""

    @abstractmethod
    def report(self, rewards: Sequence[Sequence[float] | None]) -> Mapping[str, Score]:
        """Return every metric by its name, the official one first."""


class Writer:
    """Requests in, texts in the same order out."""

    @default
    def requests_at_once(self) -> int:
        """The requests that keep it busy: a caller that has more hands over as many at once."""
        return 1

    @default
    def reads_images(self) -> bool:
        """Whether a request with an image is answered at all."""
        return True

    @default
    def remote_urls(self) -> Sequence[str]:
        """The addresses of other machines that requests are sent to; empty where all stays on this one."""
        return ()

    @default
    def takes_options(self) -> bool:
        """Whether it asks by itself which of a request's `options` is better, without a template."""
        return False

    @default
    def statistics(self) -> Mapping[str, float]:
        """Counts made while writing, by name: tokens, seconds, price."""
        return NONE

    @default
    def facts(self) -> Mapping[str, str]:
        """The model and all else that a report says of who wrote, by name."""
        return NO_FACTS

    @abstractmethod
    def write(self, requests: Sequence[Request]) -> Sequence[Completion]:
        """Return a text for each request, in their order; several threads may call it."""

    def estimate(self, requests: Sequence[Request]) -> Mapping[str, float]:
        """Return what the requests would take, by name, and write nothing."""
        return {"requests": len(requests)}
