"""The critic paradigm: a critique of each response is written first, and the reward is read after it.

As MM-RLHF has it (arXiv 2502.10391, section 4; arXiv 2509.16127, section 4.1, "critic-based").

Shapes: N responses, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from basereward.backbones.generation import generate
from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.forest.forest import Forest, Tree
from basereward.losses import LossOutput, Targets, apply_loss
from basereward.paradigms.judge import Judge
from basereward.paradigms.token_nll import mean_nll
from basereward.prepared import Encoded, Prepared
from basereward.protocols import Backbone, Head, Loss
from basereward.writers.question_tree import encode_answers, question_tree

KEY = "critiques"
"""The key of a comparison's `meta` for its critiques: a text or null for each response."""


@dataclass(frozen=True)
class Questions(Encoded):
    """A question about each response, and the critiques that were given.

    Args:
        tree: The questions; each branch ends where its critique begins.
        critiques: Tokens of each critique; None where none was given.
        end: Tokens that end a critique.
    """

    tree: Tree
    critiques: tuple[list[int] | None, ...]
    end: list[int]


class Critic(Judge):
    """Backbone, language-model head, and a reward head that reads after the critique.

    A response is put to the model by a template, the model writes a critique, always the likeliest token, and
    the head reads the hidden state at its end. A comparison whose `meta` has `critiques`, a text or null for
    each response, is scored with these, and those that are null are written.

    Training reads given critiques. Its loss is that of the rewards plus, for each pair,

        critique_weight * (c_chosen + c_rejected),

    c being the mean negative log-likelihood of a critique's tokens, its end included, and 0 where there is no
    critique; such a response's reward is then read where its critique would begin. Ties teach no critique.

    Args:
        backbone: Makes hidden states, and has a language-model head.
        head: Makes rewards of hidden states.
        loss: Compares rewards with ranks.
        template: The judge template that asks for a critique.
        critique_weight: How much the likelihood of critiques counts beside the loss of rewards; arXiv
            2502.10391 uses 1.
        max_critique_tokens: The longest critique that is written; longer ones are cut, and counted.
    """

    head: Head
    text_key = KEY

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        loss: Loss,
        *,
        template: str = "critique",
        critique_weight: float = 1.0,
        max_critique_tokens: int = 512,
    ) -> None:
        if not 0 <= critique_weight < float("inf"):
            raise ValueError(f"critique_weight is a finite number >= 0, not {critique_weight}")
        if max_critique_tokens < 1:
            raise ValueError(f"max_critique_tokens is a number of tokens >= 1, not {max_critique_tokens}")
        super().__init__(backbone, template, answers=("critique",), name="critic")
        self.head = head
        self.criterion = loss
        self.language_head = backbone.language_head()
        self.critique_weight = critique_weight
        self.max_critique_tokens = max_critique_tokens

    @property
    def statistics(self) -> Mapping[str, float]:
        """Counts of critiques: `critiques_written`, and of these `critiques_cut` at `max_critique_tokens` and
        `critiques_empty`.
        """
        names = ("critiques_written", "critiques_cut", "critiques_empty")
        return {name: self.counts[name] for name in names} if self.counts["critiques_written"] else {}

    def prepare(self, comparison: Comparison) -> Prepared[Questions]:
        """Do what the CPU can do ahead: open images, tokenize.

        Raises:
            DataError: When the comparison can't be encoded, or its critiques are no texts for its responses.
        """
        given = given_critiques(comparison)
        messages = [
            self.template.messages(comparison.prompt, [response]) for response in comparison.responses
        ]
        ids, end = encode_answers(self.backbone, [critique or "" for critique in given])
        longest = max(map(len, ids))
        if None in given and not self.training:
            longest = max(longest, self.max_critique_tokens)
        tree = question_tree(self.backbone, messages, reserve_tokens=longest + len(end))
        critiques = [
            None if critique is None else tokens for critique, tokens in zip(given, ids, strict=True)
        ]
        num_more = sum(len(ids or ()) + len(end) for ids in critiques)
        questions = Questions(tree, tuple(critiques), end)
        return Prepared(comparison, questions, self.size_of(tree, num_more=num_more))

    def critiques(self, comparison: Comparison) -> list[str]:
        """Return the critique of each response: the one that is given, or the one that the model writes."""
        [texts] = self.texts_of([self.prepare(comparison)])
        return texts

    @torch.no_grad()
    def texts_of(self, batch: Sequence[Prepared[Questions]]) -> list[list[str]]:
        """Return the critiques of each comparison: those that are given, and else those that are written."""
        with self.evaluating():
            written = self._critiques([item.content for item in batch])
        return [
            [
                self.backbone.text(tokens) if text is None else text
                for tokens, text in zip(ids, given_critiques(item.comparison), strict=True)
            ]
            for item, ids in zip(batch, written, strict=True)
        ]

    def loss_of(self, batch: Sequence[Prepared[Questions]]) -> LossOutput:
        """Return the loss of prepared comparisons, with the critiques they have."""
        forest = self._forest(batch, [[ids or [] for ids in item.content.critiques] for item in batch])
        comparisons = [item.comparison for item in batch]
        targets = Targets.of(comparisons, forest.lengths, forest.ends.device)
        hidden = self.backbone(forest)
        output = apply_loss(self.criterion, self.head(hidden, forest), targets)
        if not self.critique_weight:
            return output
        critiques = [
            [] if ids is None else [*ids, *item.content.end]
            for item in batch
            for ids in item.content.critiques
        ]
        costs = mean_nll(hidden, forest, self.language_head, critiques)  # [N]
        # Ties count for nothing: most losses give them no weight, and what has none can't be added up.
        weight = (~targets.tie).to(costs.dtype)
        if targets.weight is not None:
            weight = weight * targets.weight
        cost = (weight * costs[targets.pairs].sum(1)).sum()
        # Over the same denominator, so that loss * weight adds up over batches.
        cost = cost / torch.where(output.weight > 0, output.weight, 1.0)
        return replace(output, loss=output.loss + self.critique_weight * cost)

    @torch.no_grad()
    def score_of(self, batch: Sequence[Prepared[Questions]]) -> Tensor:
        """Return the rewards [N] of prepared comparisons, in their order; missing critiques are written."""
        forest = self._forest(batch, self._critiques([item.content for item in batch]))
        forest = replace(forest, reads=self.head.reads)
        rewards: Tensor = self.head(self.backbone(forest), forest)
        return rewards

    def _critiques(self, batch: Sequence[Questions]) -> list[list[list[int]]]:
        """Return the tokens of each critique; those that were not given are written, all together."""
        missing = [
            [number for number, ids in enumerate(questions.critiques) if ids is None] for questions in batch
        ]
        trees = [
            replace(questions.tree, responses=[questions.tree.responses[number] for number in numbers])
            for questions, numbers in zip(batch, missing, strict=True)
            if numbers
        ]
        generations = generate(
            self.backbone,
            self.language_head,
            trees,
            max_tokens=self.max_critique_tokens,
            stop_ids=batch[0].end,
        )
        written = [each for of_tree in generations for each in of_tree]
        self.counts["critiques_written"] += len(written)
        self.counts["critiques_cut"] += sum(not each.is_finished for each in written)
        self.counts["critiques_empty"] += sum(not each.ids for each in written)
        new = iter(written)
        return [[next(new).ids if ids is None else ids for ids in questions.critiques] for questions in batch]

    def _forest(
        self, batch: Sequence[Prepared[Questions]], critiques: Sequence[Sequence[list[int]]]
    ) -> Forest:
        """Return a forest whose branches are response, critique, and its end."""
        trees = []
        for item, texts in zip(batch, critiques, strict=True):
            branches = [
                [*asks, *ids, *item.content.end]
                for asks, ids in zip(item.content.tree.responses, texts, strict=True)
            ]
            trees.append(replace(item.content.tree, responses=branches))
        return self.packed(trees)


def given_critiques(comparison: Comparison) -> list[str | None]:
    """Return the critique of each response that a comparison has in its meta.

    Raises:
        DataError: When they are no list of a text or null for each response.
    """
    num = len(comparison.responses)
    critiques = comparison.meta.get(KEY)
    if critiques is None:
        return [None] * num
    is_list = isinstance(critiques, list | tuple) and len(critiques) == num
    if not is_list or not all(text is None or isinstance(text, str) for text in critiques):
        raise DataError(
            f"a list of {num} critiques is needed, a text or null for each response, not {critiques!r:.80}",
            field=f"meta.{KEY}",
        )
    # A critique of nothing says nothing: it is one that is missing.
    return [text if text and text.strip() else None for text in critiques]
