"""The listwise paradigm: the model is shown all responses at once, in rotated orders, and names the best.

Shapes: N responses, R rotations, n questions of a batch, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from basereward.backbones.lm_head import LanguageHead
from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.forest.forest import Tree
from basereward.losses import LossOutput, Targets, apply_loss
from basereward.paradigms.answer_counts import AnswerCounts
from basereward.paradigms.judge import Judge, mass_of
from basereward.paradigms.judge_template import LABELS
from basereward.prepared import Encoded, Prepared
from basereward.protocols import Backbone, Loss
from basereward.writers.question_tree import encode_answers, question_tree


def rotations(num_responses: int, max_rotations: int | None) -> list[list[int]]:
    """Return the orders in which N responses are shown: each begins with another one, and goes round.

    All N, or as many as allowed, spread evenly.
    """
    num = num_responses if max_rotations is None else min(max_rotations, num_responses)
    firsts = [place * num_responses // num for place in range(num)]
    return [[(first + step) % num_responses for step in range(num_responses)] for first in firsts]


def can_show(num_responses: int) -> bool:
    """Tell whether there are letters for so many responses, and two to compare."""
    return 2 <= num_responses <= len(LABELS)


def shown_orders(comparison: Comparison, max_rotations: int | None) -> list[list[int]]:
    """Return the orders in which the responses of a comparison are shown.

    Raises:
        DataError: When it has one response, or more than there are letters.
    """
    num = len(comparison.responses)
    if not can_show(num):
        raise DataError(
            f"a listwise judge compares 2 to {len(LABELS)} responses, not {num}", field="responses"
        )
    return rotations(num, max_rotations)


@dataclass(frozen=True)
class Orders(Encoded):
    """The questions about a comparison, one for each order.

    Args:
        tree: A branch for each question; it ends where the answer begins.
        orders: [R, N] the responses as they are shown.
    """

    tree: Tree
    orders: tuple[tuple[int, ...], ...]


class Listwise(Judge):
    """A judge that is shown all N responses of a comparison at once, and names the best by a letter.

    The responses are shown in N orders, each beginning with another one. A response's reward is the mean over
    the orders of the logarithm of its letter's probability among the N letters, so that the softmax of the
    rewards says how likely each is the best, and differences are log-odds.

    Training gives the run's loss the log-probabilities of each order as rewards: with `plackett-luce` a
    listwise softmax over the ranking, with `bradley-terry` each pair's log-odds.

    Args:
        backbone: Makes hidden states, and has a language-model head, which is this paradigm's head.
        head: Not used: a judge has no reward head.
        loss: Compares the log-probabilities of letters with ranks.
        template: The judge template that asks for a choice.
        max_rotations: Orders that are asked about in a comparison; None for N.
    """

    is_comparative = True

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        loss: Loss,
        *,
        template: str = "choice",
        max_rotations: int | None = None,
    ) -> None:
        super().__init__(backbone, template, answers=("choice",), name="listwise")
        if max_rotations is not None and max_rotations < 1:
            raise ValueError(f"max_rotations is a number >= 1, not {max_rotations}")
        self.head: LanguageHead = backbone.language_head()
        self.criterion = loss
        self.max_rotations = max_rotations
        labels, self.end = encode_answers(backbone, LABELS)
        if any(len(ids) != 1 for ids in labels):
            raise ConfigError("the tokenizer has no tokens of their own for A to Z, the names of responses")
        self.labels = [ids[0] for ids in labels]
        self.answered = AnswerCounts()

    @property
    def statistics(self) -> Mapping[str, float]:
        """Measures of how reliable the choices so far are.

        See `AnswerCounts.statistics`.
        """
        return self.answered.statistics

    def takes(self, num_responses: int) -> bool:
        """Tell whether there are letters for so many responses, and two to compare."""
        return can_show(num_responses)

    def prepare(self, comparison: Comparison) -> Prepared[Orders]:
        """Do what the CPU can do ahead: open images, tokenize.

        Raises:
            DataError: When the comparison has one response, more than there are letters, or can't be encoded.
        """
        orders = shown_orders(comparison, self.max_rotations)
        messages = [
            self.template.messages(comparison.prompt, [comparison.responses[number] for number in order])
            for order in orders
        ]
        tree = question_tree(self.backbone, messages, reserve_tokens=1 + len(self.end))
        return Prepared(comparison, Orders(tree, tuple(map(tuple, orders))), self.size_of(tree))

    def loss_of(self, batch: Sequence[Prepared[Orders]]) -> LossOutput:
        """Return the loss of prepared comparisons: the mean over orders of the run's loss."""
        by_order = self._likelihoods(batch, self._ends(batch))
        comparisons = [item.comparison for item in batch]
        repeated = [
            comparison.replace(weight=comparison.weight / len(each))
            for comparison, each in zip(comparisons, by_order, strict=True)
            for _ in range(len(each))
        ]
        device = by_order[0].device
        likelihoods = torch.cat([each.flatten() for each in by_order])
        output = apply_loss(self.criterion, likelihoods, Targets.of(repeated, device=device))
        # What is counted are comparisons, each once, by the rewards that they have.
        with torch.no_grad():
            rewards = torch.cat([each.mean(0) for each in by_order])
            counted = apply_loss(self.criterion, rewards, Targets.of(comparisons, device=device))
        return LossOutput(output.loss, counted.weight, counted.sums)

    @torch.no_grad()
    def score_of(self, batch: Sequence[Prepared[Orders]]) -> Tensor:
        """Return the rewards [N] of prepared comparisons, in their order."""
        ends = self._ends(batch)
        by_order = self._likelihoods(batch, ends)
        masses = torch.cat(
            [
                mass_of(self.head, part, self.labels[: len(item.content.orders[0])])
                for item, part in zip(batch, ends.split(_num_orders(batch)), strict=True)
            ]
        )
        self.answered.add(len(masses), masses=masses.tolist())
        for item, each in zip(batch, by_order, strict=True):
            self.answered.add_favourites(each.argmax(1).tolist(), [order[0] for order in item.content.orders])
        return torch.cat([each.mean(0) for each in by_order])

    def _ends(self, batch: Sequence[Prepared[Orders]]) -> Tensor:  # [n, D]
        """Return the hidden states where the answers begin."""
        forest = replace(self.packed([item.content.tree for item in batch]), reads="ends")
        return self.backbone(forest).flatten(0, 1).index_select(0, forest.ends)

    def _likelihoods(self, batch: Sequence[Prepared[Orders]], ends: Tensor) -> list[Tensor]:  # of [R, N]
        """Return the log-probability of each response to be chosen, in each order, of each comparison."""
        logits = self.head(ends, torch.tensor(self.labels, device=ends.device))  # [n, 26]
        likelihoods = []
        for item, part in zip(batch, logits.split(_num_orders(batch)), strict=True):
            orders = torch.tensor(item.content.orders, device=ends.device)  # [R, N]
            shown = part[:, : orders.shape[1]].log_softmax(1)
            likelihoods.append(torch.zeros_like(shown).scatter(1, orders, shown))
        return likelihoods


def _num_orders(batch: Sequence[Prepared[Orders]]) -> list[int]:
    return [len(item.content.orders) for item in batch]
