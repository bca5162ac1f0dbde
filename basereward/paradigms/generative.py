"""The generative paradigm: the model is asked which of two responses is better.

arXiv 2509.16127, section 4.1: with a verdict of one token, as Seed-1.5-VL's reward model gives it, or after
reasoning, as R1-Reward (arXiv 2505.02835) does.

Shapes: N responses, P pairs, E pairs that are asked about.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import compress, islice

import torch
from torch import Tensor, nn

from basereward import ops
from basereward.backbones.generation import Sampling, generate
from basereward.backbones.opened_turn import Turn
from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.forest.forest import Forest, Tree
from basereward.losses import LossOutput, Targets
from basereward.paradigms.judge import Judge, mass_of
from basereward.paradigms.judge_rationales import VERDICTS_KEY, given_rationales, given_verdicts
from basereward.paradigms.token_nll import mean_nll
from basereward.paradigms.verdict_tally import (
    NO_VERDICT,
    Order,
    VerdictTally,
    asked_orders,
    check_settings,
)
from basereward.paradigms.verdicts import Aggregate, Reading, Verdicts
from basereward.prepared import Encoded, Prepared
from basereward.protocols import Backbone
from basereward.writers.question_tree import encode_answers, question_tree


@dataclass(frozen=True)
class Questions(Encoded):
    """The questions about the pairs of a comparison.

    Args:
        tree: A branch for each question; it ends where the answer begins.
        orders: [2 P] the order of each question's responses; each pair is asked about in both orders.
        rationales: Tokens of the texts to learn, of the questions that have one.
        verdicts: The texts that were given as answers, of the questions that have some.
    """

    tree: Tree
    orders: tuple[Order, ...]
    rationales: Mapping[Order, list[int]]
    verdicts: Mapping[Order, Sequence[str]]


class Generative(Judge):
    """A judge of pairs; a response's reward follows from how it fares against the others.

    Each pair is asked about in both orders. With a template of one-token verdicts, the preference is the
    probability of "1" against "2", its log-odds averaged over both orders; with one of reasoned verdicts, it
    is the share of answers, averaged over both orders. A text that is not in the form asked for is no
    verdict: it is counted and left out, and where that leaves a response compared with no other, the
    comparison has no rewards.

    A reasoned judge scores a comparison whose `meta` has `verdicts`, a list of {"first": i, "second": j,
    "text": t}, by these texts, and writes on the other questions only.

    Training maximizes the likelihood of verdicts, or of the texts in `meta`'s `judgements`, a list of the
    same form; a reasoned judge needs these. Reinforcement learning is in
    `basereward.integrations.judge_grpo`.

    Args:
        backbone: Makes hidden states, and has a language-model head, which is this paradigm's head.
        head: Not used: a judge has no reward head.
        loss: Not used: a judge learns what to write.
        template: The judge template that asks for a verdict: `verdict`, `reasoned`, or a plugin's.
        aggregate: How preferences become rewards: `wins`, a response's mean probability of being better, or
            `bradley-terry`, the rewards under which the preferences are likeliest.
        max_pairs: Pairs that are asked about in a comparison; None for all. N - 1 are asked at least.
        num_votes: Answers to each question of a reasoned judge. One is always the likeliest; more are drawn.
        temperature: Of the draws.
        max_answer_tokens: The longest text of a reasoned judge; longer ones are no verdict.
        reading: How the texts of a reasoned judge are read, as `verdicts.read_verdict` takes it.
    """

    is_comparative = True
    reason_for_nan = NO_VERDICT

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        loss: nn.Module,
        *,
        template: str = "verdict",
        aggregate: Aggregate = "wins",
        max_pairs: int | None = None,
        num_votes: int = 1,
        temperature: float = 1.0,
        max_answer_tokens: int = 1024,
        reading: Reading = "form",
    ) -> None:
        super().__init__(backbone, template, answers=("verdict", "reasoned"), name="generative")
        check_settings(
            self.template,
            max_pairs=max_pairs,
            num_votes=num_votes,
            temperature=temperature,
            max_answer_tokens=max_answer_tokens,
        )
        self.head = backbone.language_head()
        # Reasoning goes on in the turn that the template opens, as in reinforcement learning.
        self.turn: Turn = "opened" if self.template.answer == "reasoned" else "finished"
        self.text_key = VERDICTS_KEY if self.template.answer == "reasoned" else ""
        self.tally = VerdictTally(aggregate, reading)
        self.reward_unit = self.tally.reward_unit
        self.max_pairs = max_pairs
        self.num_votes = num_votes
        self.temperature = temperature
        self.max_answer_tokens = max_answer_tokens
        (first, second), self.end = encode_answers(backbone, ["1", "2"])
        if len(first) != 1 or len(second) != 1:
            raise ConfigError('the tokenizer has no tokens of their own for "1" and "2", the verdicts')
        self.verdicts = [*first, *second]

    @property
    def statistics(self) -> Mapping[str, float]:
        """Measures of how reliable the verdicts so far are; see `VerdictTally.statistics`."""
        return self.tally.statistics

    def takes(self, num_responses: int) -> bool:
        """Tell whether there are two responses to compare."""
        return num_responses > 1

    @contextmanager
    def recording_verdicts(self) -> Iterator[dict[int, Verdicts]]:
        """Give a dictionary that takes the verdicts on each comparison that is scored, by its `id()`."""
        with self.tally.recording() as recorded:
            yield recorded

    def prepare(self, comparison: Comparison) -> Prepared[Questions]:
        """Do what the CPU can do ahead: open images, tokenize.

        Raises:
            DataError: When the comparison has one response, can't be encoded, or its judgements are wrong.
        """
        num = len(comparison.responses)
        if num < 2:
            raise DataError("a judge compares responses; there is only one", field="responses")
        orders = asked_orders(num, self.max_pairs)
        messages = [
            self.template.messages(
                comparison.prompt, [comparison.responses[first], comparison.responses[second]]
            )
            for first, second in orders
        ]
        rationales: dict[Order, list[int]] = {}
        verdicts: Mapping[Order, Sequence[str]] = {}
        if self.template.answer == "reasoned":
            if not self.training:
                verdicts = given_verdicts(comparison)
            given = given_rationales(comparison, is_needed=self.training)
            texts = [given.get(order, "") for order in orders]
            encoded, _ = encode_answers(self.backbone, texts, turn=self.turn)
            rationales = {order: ids for order, ids in zip(orders, encoded, strict=True) if ids}
        reserve_tokens = max(map(len, rationales.values()), default=1)
        if self.template.answer == "reasoned" and not self.training:
            reserve_tokens = max(reserve_tokens, self.max_answer_tokens)
        tree = question_tree(
            self.backbone, messages, reserve_tokens=reserve_tokens + len(self.end), turn=self.turn
        )
        num_more = sum(len(rationales.get(order, ())) + len(self.end) for order in orders)
        questions = Questions(tree, orders, rationales, verdicts)
        return Prepared(comparison, questions, self.size_of(tree, num_more=num_more))

    def loss_of(self, batch: Sequence[Prepared[Questions]]) -> LossOutput:
        """Return the loss of prepared comparisons: for each pair that is no tie, the mean over its orders of
        the mean negative log-likelihood of a token of the answer.
        """
        targets = Targets.of([item.comparison for item in batch], device=self.device)
        answers = [self._answers(item) for item in batch]
        weights = _weights(batch, answers)
        if not weights:
            # All the same the backbone runs, as it does in processes that train together with this one.
            answers[0] = {batch[0].content.orders[0]: [self.verdicts[0], *self.end]}
            weights = [0.0]
        trees = []
        for item, learned in zip(batch, answers, strict=True):
            tree = item.content.tree
            questions = zip(item.content.orders, tree.responses, strict=True)
            branches = [[*ids, *learned[order]] for order, ids in questions if order in learned]
            if branches:
                trees.append(replace(tree, responses=branches))
        continuations = [answer for learned in answers for answer in learned.values()]
        forest = self.packed(trees)
        hidden = self.backbone(forest)
        costs = mean_nll(hidden, forest, self.head, continuations)  # [branches]
        shares = torch.tensor(weights, device=costs.device)  # [branches]
        total = shares.sum()
        loss = (shares * costs).sum() / torch.where(total > 0, total, 1.0)
        with torch.no_grad():
            margins = iter(self._margins_within(hidden, forest, continuations))
        values: list[float] = []
        for item, learned in zip(batch, answers, strict=True):
            preference_of = {order: next(margins) for order in learned}
            num = len(item.comparison.responses)
            values += _finite_or_equal(self.tally.rewards(num, preference_of, are_odds=True))
        rewards = torch.tensor(values, device=costs.device)
        return LossOutput(loss, total, _statistics(rewards, targets, total))

    @torch.no_grad()
    def score_of(self, batch: Sequence[Prepared[Questions]]) -> Tensor:
        """Return the rewards [N] of prepared comparisons, in their order; not-a-number for all responses of a
        comparison whose verdicts can't be read.
        """
        rewards: list[float] = []
        if self.template.answer == "verdict":
            forest = replace(self.packed([item.content.tree for item in batch]), reads="ends")
            hidden = self.backbone(forest).flatten(0, 1).index_select(0, forest.ends)
            margins = iter(self._margins(hidden))
            masses = iter(mass_of(self.head, hidden, self.verdicts).tolist())
            for item in batch:
                orders = item.content.orders
                odds_of = {order: next(margins) for order in orders}
                rewards += self.tally.rewards_of_odds(item.comparison, odds_of, islice(masses, len(orders)))
        else:
            for item, texts_of in zip(batch, self._texts(batch), strict=True):
                rewards += self.tally.rewards_of_texts(item.comparison, texts_of)
        return torch.tensor(rewards, dtype=torch.float32, device=self.device)

    def judge(self, comparison: Comparison) -> list[dict[str, object]]:
        """Return what a reasoned judge answers on each pair in both orders, in the form of `verdicts`."""
        [entries] = self.texts_of([self.prepare(comparison)])
        return entries

    def texts_of(self, batch: Sequence[Prepared[Questions]]) -> list[list[dict[str, object]]]:
        """Return a reasoned judge's answers on each comparison, in the form of `verdicts`."""
        return [
            [
                {"first": first, "second": second, "text": text or ""}
                for (first, second), texts in texts_of.items()
                for text in texts
            ]
            for texts_of in self._texts(batch)
        ]

    def _margins(self, hidden: Tensor) -> list[float]:  # [n, D]
        """Return the log-odds of "1" against "2"."""
        logits = self.head(hidden, torch.tensor(self.verdicts, device=hidden.device))
        return (logits[:, 0] - logits[:, 1]).tolist()  # type: ignore[no-any-return]

    def _margins_within(
        self, hidden: Tensor, forest: Forest, continuations: Sequence[list[int]]
    ) -> list[float]:
        """Return the log-odds where each continuation gives its verdict, the last "1" or "2" in it."""
        back = [
            next(place for place, token in enumerate(reversed(ids)) if token in self.verdicts)
            for ids in continuations
        ]
        places = forest.ends - torch.tensor(back, device=hidden.device) - 1
        return self._margins(hidden.flatten(0, 1).index_select(0, places))

    def _texts(self, batch: Sequence[Prepared[Questions]]) -> list[dict[Order, Sequence[str | None]]]:
        """Return the answers to each comparison's questions, a text a vote: those that were given, and for
        the other questions those that are written, all together. A text that was cut is None.
        """
        votes = self.num_votes
        missing = [
            [order not in item.content.verdicts for order in item.content.orders for _ in range(votes)]
            for item in batch
        ]
        trees = [
            replace(
                item.content.tree,
                responses=list(
                    compress((asks for asks in item.content.tree.responses for _ in range(votes)), wanted)
                ),
            )
            for item, wanted in zip(batch, missing, strict=True)
            if any(wanted)
        ]
        with self.evaluating():
            generations = generate(
                self.backbone,
                self.head,
                trees,
                max_tokens=self.max_answer_tokens,
                stop_ids=self.end,
                sampling=Sampling(self.temperature) if votes > 1 else None,
            )
        opening = self.backbone.turn_opening()
        # One that was cut gave no verdict, whatever its text looks like.
        written = iter(
            opening + self.backbone.text(each.ids) if each.is_finished else None
            for of_tree in generations
            for each in of_tree
        )
        return [
            {
                order: item.content.verdicts.get(order) or list(islice(written, votes))
                for order in item.content.orders
            }
            for item in batch
        ]

    def _answers(self, item: Prepared[Questions]) -> dict[Order, list[int]]:
        """Return the tokens to learn, the end included, of the questions that have some."""
        ranks = item.comparison.ranks or ()
        answers: dict[Order, list[int]] = {}
        for first, second in item.content.orders:
            if ranks[first] == ranks[second]:
                continue
            if self.template.answer == "verdict":
                answers[first, second] = [self.verdicts[int(ranks[first] > ranks[second])], *self.end]
            elif (first, second) in item.content.rationales:
                answers[first, second] = [*item.content.rationales[first, second], *self.end]
        return answers


def _weights(
    batch: Sequence[Prepared[Questions]], answers: Sequence[Mapping[Order, list[int]]]
) -> list[float]:
    """Return the weight of each answer that is learned: its pair's, divided among its orders."""
    return [
        item.comparison.weight / (1 + ((second, first) in learned))
        for item, learned in zip(batch, answers, strict=True)
        for first, second in learned
    ]


def _statistics(rewards: Tensor, targets: Targets, weight: Tensor) -> Tensor:
    return ops.pair_statistics(rewards.float(), targets.pairs, targets.tie, weight)


def _finite_or_equal(rewards: list[float]) -> list[float]:
    """Return rewards for statistics of training, in which responses that weren't asked about are alike."""
    return rewards if all(map(math.isfinite, rewards)) else [0.5] * len(rewards)
