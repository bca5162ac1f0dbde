"""Losses that break one promise each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from mutants import Mutant
from torch import Tensor, nn

from basereward import ops
from basereward.losses import BradleyTerry, Hinge, LossOutput, Targets
from basereward.testing import losses


class Shapeless(BradleyTerry):
    """Gives a cost for each response. Ties are ignored."""

    def forward(self, rewards: Tensor, targets: Targets) -> Any:
        return rewards.square()


class Single(BradleyTerry):
    """Gives its sums in fp32. Ties are ignored."""

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:
        output = super().forward(rewards, targets)
        return replace(output, sums=output.sums.float())


class Disordered(BradleyTerry):
    """Gives its sums the other way round. Ties are ignored."""

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:
        output = super().forward(rewards, targets)
        return replace(output, sums=output.sums.flip(0))


class Steep(BradleyTerry):
    """Has twice the gradient that it should have. Ties are ignored."""

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:
        output = super().forward(rewards, targets)
        return replace(output, loss=2 * output.loss - output.loss.detach())


class Reversed(BradleyTerry):
    """Prefers the worse response. Ties are ignored."""

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:
        return super().forward(-rewards, targets)


class Margin(nn.Module):
    """A loss of margins; ties are left out."""

    def cost(self, margin: Tensor) -> Tensor:
        return nn.functional.softplus(-margin)

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:
        rewards = rewards if rewards.dtype == torch.float64 else rewards.float()
        chosen, rejected = rewards[targets.pairs].unbind(1)
        weight = torch.ones_like(chosen) if targets.weight is None else targets.weight.to(chosen.dtype)
        weight = weight * ~targets.tie
        total = weight.sum()
        loss = (self.cost(chosen - rejected) * weight).sum() / torch.where(total > 0, total, 1.0)
        return LossOutput(loss, total, ops.pair_statistics(rewards, targets.pairs, targets.tie, total))


class Squared(Margin):
    """Holds margins to 1; ties are left out."""

    def cost(self, margin: Tensor) -> Tensor:
        return (margin - 1).square()


class Logarithm(Margin):
    """Takes the logarithm of what may be zero; ties are left out."""

    def cost(self, margin: Tensor) -> Tensor:
        return -margin.sigmoid().log()


class Silent(BradleyTerry):
    """The negative log-likelihood of a pair."""


class TakesTheFirst(Hinge):
    """Takes the first response of a tie as the better one."""

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:
        return super().forward(rewards, replace(targets, tie=torch.zeros_like(targets.tie)))


class LearnsInSilence(Hinge):
    """Learns from ties, and doesn't say so."""

    def __init__(self) -> None:
        super().__init__(ties="half")
        self.learns_from_ties = False


class DividesByZero(Margin):
    """Leaves ties out, and then has nothing to divide by."""

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:
        output = super().forward(rewards, targets)
        return replace(output, loss=output.loss * output.weight / output.weight)


class Unweighed(BradleyTerry):
    """Says that each batch weighs 1. Ties are ignored."""

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:
        output = super().forward(rewards, targets)
        return replace(output, weight=torch.ones(()))


class IgnoresWeights(BradleyTerry):
    """Counts every comparison alike. Ties are ignored."""

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:
        return super().forward(rewards, replace(targets, weight=None))


class FirstCountsMore(BradleyTerry):
    """Counts the first pair twice. Ties are ignored."""

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:
        weight = torch.ones(len(targets.pairs)) if targets.weight is None else targets.weight.clone()
        weight[:1] *= 2
        return super().forward(rewards, replace(targets, weight=weight))


class Rounds(BradleyTerry):
    """Computes in bf16 where the rewards are. Ties are ignored."""

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:
        output = super().forward(rewards, targets)
        return replace(output, loss=output.loss.to(rewards.dtype))


class CompiledOtherwise(BradleyTerry):
    """Differs where kernels are compiled. Ties are ignored."""

    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:
        from basereward.ops._loader import library

        output = super().forward(rewards, targets)
        return replace(output, loss=output.loss * (2 if library.compiled("cpu") else 1))


DIFFER = "they differ by #; at most # is allowed"

MUTANTS = [
    Mutant(
        losses.gives_a_loss_output,
        Shapeless,
        "loss Shapeless returned a Tensor of shape [#]; return a LossOutput, or a tensor: the mean over "
        "pairs [], or the cost of each of the # pairs [#]",
    ),
    Mutant(losses.gives_a_loss_output, Single, "the sums are torch.float32, not fp64"),
    Mutant(
        losses.has_sums_in_the_order_of_statistics,
        Disordered,
        f"the sum 'weight', and what it should be: {DIFFER}",
    ),
    Mutant(
        losses.has_the_right_gradient,
        Steep,
        "the gradient is not that of finite differences: Jacobian mismatch for output # with respect to "
        "input #,",
    ),
    Mutant(
        losses.prefers_the_better_response,
        Reversed,
        "the loss is # with the better response ahead by #, # with it behind",
    ),
    Mutant(
        losses.never_rises_with_a_margin,
        Squared,
        "the loss rises from # to # as the margin grows from # to #",
    ),
    Mutant(losses.is_finite_far_out, Logarithm, "at rewards of +# the loss is #"),
    Mutant(losses.says_what_it_does_with_ties, Silent, "the docstring doesn't say what it does with ties"),
    Mutant(
        losses.says_what_it_does_with_ties,
        TakesTheFirst,
        f"the loss of a tie, either response first: {DIFFER}",
    ),
    Mutant(losses.says_what_it_does_with_ties, DividesByZero, "of a batch of ties the loss is #"),
    Mutant(
        losses.says_what_it_learns_from,
        LearnsInSilence,
        "of ties alone the loss has a gradient, but untrainable_reason says: ranks: all responses are tied, "
        "which teaches this loss nothing; see learns_from_ties and learns_from_single",
    ),
    Mutant(
        losses.adds_up_over_batches,
        Unweighed,
        f"loss * weight of two batches added up, and of both together: {DIFFER}",
    ),
    Mutant(
        losses.counts_a_weight_as_repetition,
        IgnoresWeights,
        f"the loss with a comparison of weight #, and with that comparison twice: {DIFFER}",
    ),
    Mutant(
        losses.ignores_the_order_of_pairs,
        FirstCountsMore,
        f"the loss with the pairs in another order, and in theirs: {DIFFER}",
    ),
    Mutant(losses.gives_fp32, Rounds, "of bf16 rewards the loss is torch.bfloat16, not fp32"),
    Mutant(
        losses.agrees_with_the_plain_kernels,
        CompiledOtherwise,
        f"the loss of the compiled kernels, and of plain torch: {DIFFER}",
    ),
]
