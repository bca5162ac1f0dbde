"""Ensembles of runs: the rewards that their members have given, joined without running any model again.

Shapes: M members, N responses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from basereward.errors import DataError

if TYPE_CHECKING:
    from basereward.comparison import Comparison
    from basereward.evaluation.results import Result
    from basereward.protocols import Ensembler


@dataclass(frozen=True)
class Members:
    """What the members of an ensemble have scored of the same comparisons.

    Attributes:
        results: Each member's.
        comparisons: All of them, in the order of the results' numbers.
    """

    results: Sequence[Sequence[Result]]
    comparisons: Sequence[Comparison]

    @cached_property
    def by_number(self) -> list[Mapping[int, Result]]:
        """Each member's results by the comparison's number."""
        return [{result.number: result for result in own} for own in self.results]

    @cached_property
    def reads_images(self) -> list[bool]:
        """Whether each member has scored comparisons with images."""
        return [
            any(self.comparisons[number].images or self.comparisons[number].videos for number in own)
            for own in self.by_number
        ]

    def rewards(self, ensembler: Ensembler) -> tuple[list[int], torch.Tensor]:
        """Return the comparisons that every member has scored that is asked, and the rewards [M, N]."""
        numbers, columns = [], []
        for number, comparison in enumerate(self.comparisons):
            asked = ensembler.route(comparison, self.reads_images)
            if all(number in own for own, is_asked in zip(self.by_number, asked, strict=True) if is_asked):
                nothing = [math.nan] * len(comparison.responses)
                rewards = [
                    list(own[number].rewards) if is_asked else nothing
                    for own, is_asked in zip(self.by_number, asked, strict=True)
                ]
                numbers.append(number)
                columns.append(torch.tensor(rewards, dtype=torch.float64))
        if not columns:
            raise DataError("its members have no comparison in common")
        return numbers, torch.cat(columns, 1)

    def fit(self, ensembler: Ensembler) -> None:
        """Let an ensembler learn what it learns."""
        numbers, rewards = self.rewards(ensembler)
        ensembler.fit(rewards, [self.comparisons[number] for number in numbers])

    def joined(self, ensembler: Ensembler) -> list[Result]:
        """Return the rewards of the ensemble; a comparison that it gives none is left out."""
        numbers, rewards = self.rewards(ensembler)
        rows = [self.comparisons[number] for number in numbers]
        found = torch.split(ensembler(rewards, rows), [len(row.responses) for row in rows])
        results = []
        for number, own in zip(numbers, found, strict=True):
            if bool(own.isfinite().all()):
                known = next(member[number] for member in self.by_number if number in member)
                results.append(replace(known, rewards=tuple(own.tolist()), margin=None))
        return results
