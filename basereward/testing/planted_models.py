"""Reward models with planted faults: a judge, and a model whose rewards stand on a large offset."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations

import torch
from torch import Tensor

from basereward.backbones.tiny import Tiny
from basereward.comparison import Comparison
from basereward.losses import LossOutput
from basereward.paradigms.base import Paradigm
from basereward.paradigms.verdicts import Verdicts, rewards_of
from basereward.prepared import Prepared, Size
from basereward.testing.planted import PlantedScorer

OFFSET = 300.0
"""Rewards on it differ by two log-odds at least, where they are in bf16."""


class PlantedParadigm(Paradigm):
    """Rewards of a planted scorer, as a head's or as a judge's; its backbone computes nothing.

    Args:
        scorer: Gives the rewards.
        is_judge: Whether pairs are judged in both orders; a reward is then the mean probability of being
            better.
        lean: Log-odds that the judge adds for the response shown first.
        offset: What is added to each reward, before it is rounded to the type of the context.
    """

    def __init__(
        self, scorer: PlantedScorer, *, is_judge: bool = False, lean: float = 0.0, offset: float = 0.0
    ) -> None:
        super().__init__()
        self.backbone = Tiny()
        self.scorer = scorer
        self.is_comparative = is_judge
        self.lean = lean
        self.offset = offset
        self._recorded: dict[int, Verdicts] = {}

    @contextmanager
    def recording_verdicts(self) -> Iterator[Mapping[int, Verdicts]]:  # type: ignore[override]
        """Give a dictionary that takes the verdicts on each comparison that is scored, by its `id()`."""
        self._recorded = {}
        yield self._recorded

    def prepare(self, comparison: Comparison) -> Prepared[Comparison]:
        """Return the comparison, whose size is its characters."""
        texts = [*(message.text for message in comparison.prompt), *comparison.responses]
        return Prepared(comparison, comparison, Size(sum(map(len, texts))))

    def loss_of(self, batch: Sequence[Prepared[Comparison]]) -> LossOutput:
        """Refuse: it learns nothing."""
        raise NotImplementedError("a planted model is not trained")

    def score_of(self, batch: Sequence[Prepared[Comparison]]) -> Tensor:
        """Return the rewards [N] of comparisons."""
        rewards: list[float] = []
        for comparison, scores in self.scorer.score_stream([item.comparison for item in batch]):
            rewards += self._judged(comparison, scores) if self.is_comparative else scores
        values = torch.tensor(rewards) + self.offset
        return values.bfloat16().float() if torch.is_autocast_enabled("cpu") else values

    def _judged(self, comparison: Comparison, scores: Sequence[float]) -> list[float]:
        """Return each response's mean probability of being better, of both orders."""
        preferences: dict[tuple[int, int], float | None] = {}
        votes: dict[tuple[int, int], tuple[int | None, ...]] = {}
        for one, other in combinations(range(len(scores)), 2):
            margin = scores[one] - scores[other]
            forward, backward = margin + self.lean, -margin + self.lean
            votes[one, other] = (1 if forward > 0 else 2,)
            votes[other, one] = (1 if backward > 0 else 2,)
            preferences[one, other] = (_sigmoid(forward) + 1 - _sigmoid(backward)) / 2
        self._recorded[id(comparison)] = votes
        return rewards_of(preferences, len(scores), "wins")


def _sigmoid(margin: float) -> float:
    return 1 / (1 + math.exp(-margin)) if margin >= 0 else math.exp(margin) / (1 + math.exp(margin))
