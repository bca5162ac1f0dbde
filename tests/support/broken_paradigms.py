"""Paradigms that break one promise each; all are `Sound` but for that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mutants import Mutant
from torch import Tensor, nn

from basereward.backbones.base import Backbone
from basereward.comparison import Comparison
from basereward.losses import Targets
from basereward.prepared import Prepared
from basereward.protocols import Paradigm
from basereward.testing import paradigms


class Sound(Paradigm, nn.Module):
    """Keeps every promise: rewards of a head, and a loss on them."""

    def __init__(self, backbone: Backbone, head: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.criterion = loss

    def prepare(self, comparison: Comparison) -> Any:
        return Prepared(comparison, self.backbone.encode(comparison))

    def rewards_of(self, batch: Any) -> Tensor:
        forest = self.backbone.pack([item.content for item in batch])
        return self.head(self.backbone(forest), forest)

    def loss_of(self, batch: Any) -> Any:
        return self.criterion(self.rewards_of(batch), Targets.of([item.comparison for item in batch]))

    @torch.no_grad()
    def score_of(self, batch: Any) -> Tensor:
        return self.rewards_of(batch)

    def loss(self, comparisons: Sequence[Comparison]) -> Any:
        return self.loss_of([self.prepare(comparison) for comparison in comparisons])

    def score(self, comparisons: Sequence[Comparison]) -> Any:
        return self.score_of([self.prepare(comparison) for comparison in comparisons])


class Lists(Sound):
    """Gives rewards as a list."""

    def score(self, comparisons: Sequence[Comparison]) -> Any:
        return super().score(comparisons).tolist()


class KeepsGraph(Sound):
    """Computes the graph of rewards that nobody trains."""

    def score(self, comparisons: Sequence[Comparison]) -> Tensor:
        return self.rewards_of([self.prepare(comparison) for comparison in comparisons])


class Centred(Sound):
    """Gives rewards relative to the batch."""

    def rewards_of(self, batch: Any) -> Tensor:
        rewards = super().rewards_of(batch)
        return rewards - rewards.mean()


class Prepares(Sound):
    """Gives other rewards to what is prepared."""

    def score(self, comparisons: Sequence[Comparison]) -> Tensor:
        return 2 * super().score(comparisons)


class Unwrapped(Sound):
    """Prepares a tree alone."""

    def prepare(self, comparison: Comparison) -> Any:
        return self.backbone.encode(comparison)


class Bare(Sound):
    """Gives the loss alone."""

    def loss_of(self, batch: Any) -> Any:
        return super().loss_of(batch).loss


class Detached(Sound):
    """Trains the head alone."""

    def rewards_of(self, batch: Any) -> Tensor:
        forest = self.backbone.pack([item.content for item in batch])
        return self.head(self.backbone(forest).detach(), forest)


class Guesses(Sound):
    """Adds noise."""

    def rewards_of(self, batch: Any) -> Tensor:
        rewards = super().rewards_of(batch)
        return rewards + torch.randn_like(rewards)


class Forgetful(Sound):
    """Has a weight that is in no state dict."""

    def __init__(self, backbone: Backbone, head: nn.Module, loss: nn.Module) -> None:
        super().__init__(backbone, head, loss)
        self.scale = 1 + float(torch.rand(()))

    def rewards_of(self, batch: Any) -> Tensor:
        return self.scale * super().rewards_of(batch)


MUTANTS = [
    Mutant(
        paradigms.gives_one_fp32_reward_a_response, Lists, "for # responses score returns a list, not [#]"
    ),
    Mutant(
        paradigms.gives_one_fp32_reward_a_response,
        KeepsGraph,
        "score keeps the graph of its rewards; compute them without one",
    ),
    Mutant(
        paradigms.ignores_its_batch,
        Centred,
        "rewards of row-# alone and in a batch: they differ by #; at most # is allowed",
    ),
    Mutant(
        paradigms.agrees_with_what_is_prepared,
        Prepares,
        "rewards of prepared comparisons, and of comparisons: they differ by #; at most # is allowed",
    ),
    Mutant(
        paradigms.agrees_with_what_is_prepared,
        Unwrapped,
        "prepare returns a Tree, not a basereward.prepared.Prepared",
    ),
    Mutant(paradigms.gives_a_loss_output, Bare, "loss returns a Tensor, not a LossOutput"),
    Mutant(paradigms.passes_gradients_on, Detached, "no gradient of the loss reaches the backbone"),
    Mutant(
        paradigms.is_deterministic_in_eval,
        Guesses,
        "rewards of the same comparisons, twice in evaluation: they differ by #; none is allowed",
    ),
    Mutant(
        paradigms.saves_and_loads,
        Forgetful,
        "rewards of one that has the state dicts of another's modules, and of that one: they differ by #; "
        "none is allowed",
    ),
]
