"""The common part of paradigms that ask about each response, and have the model write about it first.

Shapes: N responses, Q questions of a comparison, n questions of a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from basereward.backbones.generation import Generation, generate
from basereward.backbones.lm_head import LanguageHead
from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.forest.forest import Forest, Tree
from basereward.losses import LossOutput, Targets
from basereward.message import Message
from basereward.paradigms.judge import Judge
from basereward.paradigms.judge_template import Answer
from basereward.paradigms.token_nll import mean_nll
from basereward.prepared import Encoded, Prepared
from basereward.protocols import Backbone
from basereward.writers.question_tree import encode_answers, question_tree

KEY = "critiques"
"""The key of a comparison's `meta` for its critiques: a text or null for each response."""


@dataclass(frozen=True)
class Questions(Encoded):
    """The questions about a comparison's responses, and the texts that were given as answers.

    Args:
        tree: The questions; each branch ends where its answer begins.
        critiques: Tokens of each text; None where none was given.
    """

    tree: Tree
    critiques: tuple[list[int] | None, ...]


class Critiquing(Judge, ABC):
    """Base of paradigms that put each response to the model, have it write, and read a reward then.

    Args:
        backbone: Makes hidden states, and has a language-model head.
        template: The name of the template.
        answers: The answers that a template may ask for.
        name: The paradigm's name, for messages.
        critique_weight: How much the likelihood of texts counts beside the loss of rewards.
        max_critique_tokens: The longest text that is written.
    """

    text_key = KEY

    def __init__(
        self,
        backbone: Backbone,
        template: str,
        *,
        answers: tuple[Answer, ...],
        name: str,
        critique_weight: float,
        max_critique_tokens: int,
    ) -> None:
        if not 0 <= critique_weight < float("inf"):
            raise ValueError(f"critique_weight is a finite number >= 0, not {critique_weight}")
        if max_critique_tokens < 1:
            raise ValueError(f"max_critique_tokens is a number of tokens >= 1, not {max_critique_tokens}")
        super().__init__(backbone, template, answers=answers, name=name)
        self.counts: Counter[str] = Counter()
        self.critique_weight = critique_weight
        self.max_critique_tokens = max_critique_tokens

    @cached_property
    def end(self) -> list[int]:
        """The tokens that end an answer; a model that is built for its costs alone has no tokenizer."""
        _, end = encode_answers(self.backbone, [])
        return end

    @property
    @abstractmethod
    def writing_head(self) -> LanguageHead:
        """The language-model head."""

    def asked(self, comparison: Comparison) -> list[list[Message]]:
        """Return the questions about a comparison: by default one about each response."""
        return [self.template.messages(comparison.prompt, [response]) for response in comparison.responses]

    def given(self, comparison: Comparison) -> list[str | None]:
        """Return the text that stands for the answer to each question; None where one is to be written."""
        return given_critiques(comparison)

    def answer_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts that stand for answers."""
        ids, _ = encode_answers(self.backbone, texts)
        return ids

    def prepare(self, comparison: Comparison) -> Prepared[Questions]:
        """Do what the CPU can do ahead: open images, tokenize.

        Raises:
            DataError: When the comparison can't be encoded, or its critiques are no texts for its responses.
        """
        given = self.given(comparison)
        ids = self.answer_ids([critique or "" for critique in given])
        longest = max(map(len, ids))
        if None in given and not self.training:
            longest = max(longest, self.max_critique_tokens)
        tree = question_tree(self.backbone, self.asked(comparison), reserve_tokens=longest + len(self.end))
        critiques = [
            None if critique is None else tokens for critique, tokens in zip(given, ids, strict=True)
        ]
        num_more = sum(len(ids or ()) + len(self.end) for ids in critiques)
        return Prepared(comparison, Questions(tree, tuple(critiques)), self.size_of(tree, num_more=num_more))

    def critiques(self, comparison: Comparison) -> list[str]:
        """Return the critique of each response: the one that is given, or the one that the model writes."""
        [texts] = self.texts_of([self.prepare(comparison)])
        return texts

    @torch.no_grad()
    def texts_of(self, batch: Sequence[Prepared[Questions]]) -> list[list[str]]:
        """Return the critiques of each comparison: those that are given, and else those that are written."""
        with self.evaluating():
            written = self.completed([item.content for item in batch])
        return [
            [
                self.backbone.text(each.ids) if text is None else text
                for each, text in zip(texts, self.given(item.comparison), strict=True)
            ]
            for item, texts in zip(batch, written, strict=True)
        ]

    def completed(self, batch: Sequence[Questions]) -> list[list[Generation]]:
        """Return each text; those that were not given are written, all together."""
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
            self.writing_head,
            trees,
            max_tokens=self.max_critique_tokens,
            stop_ids=self.end,
        )
        written = [each for of_tree in generations for each in of_tree]
        self.counts["critiques_written"] += len(written)
        self.counts["critiques_cut"] += sum(not each.is_finished for each in written)
        self.counts["critiques_empty"] += sum(not each.ids for each in written)
        new = iter(written)
        return [
            [next(new) if ids is None else Generation(ids, is_finished=True) for ids in questions.critiques]
            for questions in batch
        ]

    @property
    def critique_counts(self) -> Mapping[str, float]:
        """Counts of texts: `critiques_written`, and of these `critiques_cut` at `max_critique_tokens` and
        `critiques_empty`.
        """
        names = ("critiques_written", "critiques_cut", "critiques_empty")
        return {name: self.counts[name] for name in names} if self.counts["critiques_written"] else {}

    def forest_of(
        self,
        batch: Sequence[Prepared[Questions]],
        answers: Sequence[Sequence[Sequence[int]]],
    ) -> Forest:
        """Return a forest whose branches are a question and the tokens of its answer."""
        trees = []
        for item, texts in zip(batch, answers, strict=True):
            asked = item.content.tree.responses
            branches = [[*asks, *ids] for asks, ids in zip(asked, texts, strict=True)]
            trees.append(replace(item.content.tree, responses=branches))
        return self.packed(trees)

    def with_critiques(
        self,
        output: LossOutput,
        targets: Targets,
        hidden: Tensor,  # [B, L, D]
        forest: Forest,
        learned: Sequence[Sequence[int]],
    ) -> LossOutput:
        """Return a loss with the likelihood of the texts of each pair added.

        Args:
            output: The loss of rewards.
            targets: Of the same rewards.
            hidden: All states of the forest, a branch of which is a response.
            forest: Where they are.
            learned: The tokens to learn at the end of each branch.
        """
        costs = mean_nll(hidden, forest, self.writing_head, learned)  # [N]
        # Ties count for nothing: most losses give them no weight, and what has none can't be added up.
        weight = (~targets.tie).to(costs.dtype)
        if targets.weight is not None:
            weight = weight * targets.weight
        cost = (weight * costs[targets.pairs].sum(1)).sum()
        # Over the same denominator, so that loss * weight adds up over batches.
        cost = cost / torch.where(output.weight > 0, output.weight, 1.0)
        return replace(output, loss=output.loss + self.critique_weight * cost)


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
