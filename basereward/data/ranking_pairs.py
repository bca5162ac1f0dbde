"""The pairs of rankings as rows of their own, so that a mixture counts and weighs a data set in pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from basereward.comparison import Comparison, Pair
from basereward.config.run import Source
from basereward.data.curation.step import with_responses
from basereward.data.dataset import Dataset
from basereward.data.wrong_images import WrongImages
from basereward.errors import DataError
from basereward.plugins.plugin_manager import PluginManager

BY_RESPONSE = ("critiques", "attributes")
"""Entries of `meta` that are lists of one thing a response."""

JUDGEMENTS = "judgements"
"""The entry of `meta` that names responses by their numbers."""


def open_source(source: Source, plugins: PluginManager) -> Dataset:
    """Open a data set of the training data, with its rankings taken apart and with wrong images, if it says
    so.

    Raises:
        DataError: When there is no such file.
        ConfigError: When an option is unknown or wrong.
    """
    dataset: Dataset = plugins.build("dataset", source)
    if source.pairs != "together":
        dataset = RankingPairs(dataset, source.pairs)
    return WrongImages(dataset, source.wrong_images) if source.wrong_images else dataset


class RankingPairs(Dataset):
    """Each pair of each ranking of a data set as a comparison, or one pair of each; ties make none.

    Args:
        dataset: The data set.
        pairs: `each` pair that is no tie; or `one` a ranking, drawn by a digest of the ranking's id and
            prompt, the same every time.
    """

    def __init__(self, dataset: Dataset, pairs: Literal["each", "one"]) -> None:
        self.dataset = dataset
        self.pairs = pairs
        self.files: Sequence[Path] = dataset.files
        self.unread_splits = dataset.unread_splits
        self.varies_by_epoch = dataset.varies_by_epoch

    @property
    def num_rows(self) -> int | None:
        """About the number of rankings where one pair is drawn of each; None of all pairs."""
        return self.dataset.num_rows if self.pairs == "one" else None

    def count(self) -> int:
        """Return how many items `read` yields; of all pairs by reading."""
        return self.dataset.count() if self.pairs == "one" else super().count()

    def set_epoch(self, epoch: int) -> None:
        """Set the data set's epoch."""
        self.dataset.set_epoch(epoch)

    def read(self) -> Iterator[Comparison | DataError]:
        """Yield the pairs, and the errors of rows that have none."""
        return self._pairs_of(self.dataset.read())

    def probe(self, num: int) -> Iterator[Comparison | DataError]:
        """Yield the pairs of about as many of the data set's items."""
        return self._pairs_of(self.dataset.probe(num))

    def _pairs_of(self, rows: Iterator[Comparison | DataError]) -> Iterator[Comparison | DataError]:
        for row in rows:
            if isinstance(row, DataError) or row.ranks is None:
                yield row
                continue
            pairs = [pair for pair in row.pairs() if not pair.tie]
            if not pairs:
                # As it stands: it is no bad row, and what can't be learned of it is the loss's to say.
                yield row
            elif self.pairs == "one":
                yield pair_of(row, pairs[_draw(row, len(pairs))])
            else:
                yield from (pair_of(row, pair) for pair in pairs)


def pair_of(ranking: Comparison, pair: Pair) -> Comparison:
    """Return two responses of a ranking as a comparison, in its order, with what its meta says of them."""
    if len(ranking.responses) == 2:
        return ranking
    chosen = sorted((pair.chosen, pair.rejected))
    return with_responses(ranking, chosen).replace(
        id=f"{ranking.id}#{chosen[0]}-{chosen[1]}",
        meta=_meta_of(ranking.meta, chosen, len(ranking.responses)),
    )


def _meta_of(meta: Mapping[str, Any], chosen: Sequence[int], num: int) -> dict[str, Any]:
    kept = dict(meta)
    for key in BY_RESPONSE:
        if isinstance(values := meta.get(key), Sequence) and len(values) == num:
            kept[key] = [values[number] for number in chosen]
    if isinstance(judgements := meta.get(JUDGEMENTS), Sequence):
        kept[JUDGEMENTS] = [
            {**entry, "first": chosen.index(entry["first"]), "second": chosen.index(entry["second"])}
            for entry in judgements
            if {entry["first"], entry["second"]} == set(chosen)
        ]
    return kept


def _draw(ranking: Comparison, num: int) -> int:
    """Return a number below `num` that follows from the ranking alone."""
    texts = [ranking.id, *(message.text for message in ranking.prompt), *ranking.responses]
    digest = hashlib.sha256(repr(texts).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) % num
