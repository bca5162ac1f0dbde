"""What each step trains on: it follows from data, seed and step alone, or no run could be resumed exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from basereward.comparison import Comparison
from basereward.data import Dataset, place_of
from basereward.engine.rejected import RejectedRows
from basereward.errors import DataError
from basereward.losses import Targets
from basereward.options import Component
from basereward.plugins import PluginManager


@dataclass(frozen=True)
class Batch:
    """The comparisons of one step, ready for the model, and the errors of those that are not.

    Args:
        comparisons: Those that can be used.
        prepared: The same, as the paradigm prepared them.
        errors: Comparisons that can't be used, with the reasons.
        num_rows: Both together: how far the batch leads on in its epoch.
        is_last: Whether the epoch ends with it.
        following: The next batch of the epoch, which a thread prepares.
    """

    comparisons: list[Comparison]
    prepared: list[Any]
    errors: list[tuple[Comparison, DataError]]
    num_rows: int
    is_last: bool
    following: Future[Batch] | None = None

    def settle(self) -> None:
        """Wait until the next batch is prepared, which may depend on the model being in training mode."""
        if self.following is not None:
            wait([self.following])


class Rows:
    """The comparisons of several data sets, one after the other.

    Args:
        components: The data sets.
        plugins: Where they are looked up.
        split: `train` or `eval`, for the list of rejected rows.
        rejected: Takes the rows that can't be used.
        why_not: Returns why a comparison is of no use, or None.
        progress: Wraps the reading of a data set to show how far it is.
    """

    def __init__(
        self,
        components: Sequence[Component],
        plugins: PluginManager,
        *,
        split: str,
        rejected: RejectedRows,
        why_not: Callable[[Comparison], DataError | None],
        progress: Callable[[Dataset, str], Iterable[Comparison]],
    ) -> None:
        self.split = split
        self.rejected = rejected
        self.why_not = why_not
        self.progress = progress
        self.datasets: list[Dataset] = [plugins.build("dataset", component) for component in components]
        for dataset in self.datasets:
            dataset.on_bad_row = "fail" if rejected.fail else "skip"
        self.changes = any(hasattr(dataset, "set_epoch") for dataset in self.datasets)
        self.epoch: int | None = None
        self.comparisons: list[Comparison] = []
        self._digest = ""

    def of_epoch(self, epoch: int) -> list[Comparison]:
        """Return the comparisons of an epoch; data sets without `set_epoch` are read once.

        Raises:
            DataError: When not one of them can be used, or a row can't and that ends the training.
        """
        if self.epoch is None or (self.changes and epoch != self.epoch):
            self.comparisons = self._read(epoch)
            self.epoch = epoch
            self._digest = ""
        return self.comparisons

    @property
    def digest(self) -> str:
        """A SHA-256 of the texts, ranks, ratings and weights of the comparisons that were read last."""
        if not self._digest:
            found = hashlib.sha256()
            for comparison in self.comparisons:
                texts = [(message.role, message.text) for message in comparison.prompt]
                facts = (texts, comparison.responses, comparison.ranks, comparison.ratings, comparison.weight)
                found.update(repr(facts).encode("utf-8", "surrogatepass"))
            self._digest = found.hexdigest()
        return self._digest

    def _read(self, epoch: int) -> list[Comparison]:
        usable = []
        first: DataError | None = None
        num_rejected = 0
        for dataset in self.datasets:
            if hasattr(dataset, "set_epoch"):
                dataset.set_epoch(epoch)
            errors: list[tuple[str, DataError]] = []
            for comparison in self.progress(dataset, self.split):
                if (error := self.why_not(comparison)) is None:
                    usable.append(comparison)
                else:
                    errors.append((comparison.id, error.at(**place_of(comparison))))
                    if self.rejected.fail:
                        break
            for id, error in (*(("", error) for error in dataset.rejected), *errors):
                self.rejected.add(error, split=self.split, id=id)
                first = first or error
                num_rejected += 1
        if not usable:
            raise nothing_usable(self.split, num_rejected, first)
        return usable


def nothing_usable(split: str, num_rejected: int, first: DataError | None) -> DataError:
    """Return the error for data that is empty or all rejected."""
    if first is None:
        return DataError(f"data.{split} has no rows")
    return DataError(f"data.{split} has no row that can be used; {num_rejected} rejected, the first: {first}")


def why_useless(comparison: Comparison, loss: nn.Module) -> DataError | None:
    """Return why a loss learns nothing from a comparison, or None where it does.

    Only comparisons without a better and a worse response are in doubt. The loss decides by its gradient: a
    regression learns from one response, and some losses learn from ties.
    """
    if comparison.ranks is None:
        return DataError("has no ranks or ratings, so nothing can be learnt from it", field="ranks")
    if len(set(comparison.ranks)) > 1:
        return None
    num_responses = len(comparison.responses)
    # Any rewards do that are no rating by accident.
    rewards = torch.arange(1.0, num_responses + 1).mul(0.1234567).requires_grad_()
    output = loss(rewards, Targets.of([comparison], lengths=[1] * num_responses))
    if output.loss.requires_grad:
        output.loss.backward()
    if rewards.grad is not None and bool(rewards.grad.any()):
        return None
    if num_responses == 1:
        return DataError("one response alone teaches this loss nothing; two are needed", field="responses")
    return DataError("all responses are tied, which teaches this loss nothing", field="ranks")


def order_of(epoch: int, num_rows: int, *, seed: int, shuffle: bool) -> list[int]:
    """Return the order in which an epoch visits its rows: of seed and epoch alone."""
    if not shuffle:
        return list(range(num_rows))
    mixed = hashlib.sha256(f"order of epoch {epoch} with seed {seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:8]) >> 1)
    return torch.randperm(num_rows, generator=generator).tolist()


def batches(
    comparisons: Sequence[Comparison],
    order: Sequence[int],
    batch_size: int,
    prepare: Callable[[Comparison], Any],
) -> Generator[Batch]:
    """Yield an epoch's batches in order; while one is trained on, a thread prepares the next.

    A row that can't be prepared leaves its batch smaller and moves no other row, so that every batch depends
    on the order alone.
    """

    def make(start: int) -> Batch:
        usable: list[Comparison] = []
        prepared: list[Any] = []
        errors: list[tuple[Comparison, DataError]] = []
        chosen = order[start : start + batch_size]
        for number in chosen:
            comparison = comparisons[number]
            try:
                prepared.append(prepare(comparison))
                usable.append(comparison)
            except DataError as error:
                errors.append((comparison, error.at(**place_of(comparison))))
        return Batch(usable, prepared, errors, len(chosen), start + batch_size >= len(order))

    start = 0
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="basereward-batches") as executor:
        upcoming = executor.submit(make, start) if order else None
        while upcoming is not None:
            batch = upcoming.result()
            start += batch_size
            upcoming = None if batch.is_last else executor.submit(make, start)
            yield replace(batch, following=upcoming)
