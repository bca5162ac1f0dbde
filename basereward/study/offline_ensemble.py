"""Ensembles of runs: combine the saved rewards of their members, without running any model again.

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
class OfflineEnsemble:
    """The members' saved results on the same comparisons.

    Attributes:
        results: The results of each member.
        comparisons: All comparisons, in the order of the results' numbers.
        reads_images: Whether each member reads images, which it may have shown on other comparisons alone.
    """

    results: Sequence[Sequence[Result]]
    comparisons: Sequence[Comparison]
    reads_images: Sequence[bool]

    @cached_property
    def by_number(self) -> list[Mapping[int, Result]]:
        """Each member's results by the comparison's number."""
        return [{result.number: result for result in results} for results in self.results]

    def rewards(self, ensembler: Ensembler) -> tuple[list[int], torch.Tensor]:
        """Return the comparisons that all members asked for them have scored, and the rewards [M, N].

        Raises:
            DataError: When there is no such comparison.
        """
        numbers, columns = [], []
        for number, comparison in enumerate(self.comparisons):
            asked = ensembler.route(comparison, self.reads_images)
            members = list(zip(self.by_number, asked, strict=True))
            if all(number in results for results, is_asked in members if is_asked):
                unasked = [math.nan] * len(comparison.responses)
                rewards = [
                    list(results[number].rewards) if is_asked else unasked for results, is_asked in members
                ]
                numbers.append(number)
                columns.append(torch.tensor(rewards, dtype=torch.float64))
        if not columns:
            raise DataError("its members have no comparison in common")
        return numbers, torch.cat(columns, 1)

    def fit(self, ensembler: Ensembler) -> None:
        """Fit an ensembler to the members' rewards."""
        numbers, rewards = self.rewards(ensembler)
        ensembler.fit(rewards, [self.comparisons[number] for number in numbers])

    def score(self, ensembler: Ensembler) -> list[Result]:
        """Return the results of the ensemble; a comparison without finite rewards is left out."""
        numbers, rewards = self.rewards(ensembler)
        comparisons = [self.comparisons[number] for number in numbers]
        sizes = [len(comparison.responses) for comparison in comparisons]
        combined = torch.split(ensembler(rewards, comparisons), sizes)
        results = []
        for number, scores in zip(numbers, combined, strict=True):
            if bool(scores.isfinite().all()):
                result = next(member[number] for member in self.by_number if number in member)
                results.append(replace(result, rewards=tuple(scores.tolist()), margin=None))
        return results
