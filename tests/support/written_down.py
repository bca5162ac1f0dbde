"""A model that is not one: it gives the rewards that a test has written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward import Comparison, DataError
from basereward.protocols import Scorer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class WrittenDown(Scorer[list[float]]):
    """Gives each response the number that its text ends with; a text that ends with "!" can't be scored."""

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []
        self.scored: list[str] = []

    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int
    ) -> Iterator[tuple[Comparison, list[float] | DataError]]:
        self.batch_sizes.append(batch_size)
        for comparison in comparisons:
            self.scored.append(comparison.id)
            if any(response.endswith("!") for response in comparison.responses):
                yield comparison, DataError("is too loud", field="responses")
            else:
                yield comparison, [float(response.split()[-1]) for response in comparison.responses]
