"""The pointwise paradigm: the model rates each response by itself, on levels with names, or by a rubric.

The reward is the expected value of the level, under the likelihoods of the levels' tokens where the level
stands; of a rubric it is the weighted share of yes.

Shapes: N responses, M items of a rubric, 1 without one, n questions of a batch, D width, K levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from basereward.backbones.lm_head import LanguageHead
from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.losses import LossOutput, Targets, apply_loss, weighted_mean
from basereward.message import Message
from basereward.ops import common_prefix
from basereward.paradigms.answer_counts import AnswerCounts
from basereward.paradigms.critiquing import Critiquing, Questions, given_critiques
from basereward.paradigms.judge import mass_of
from basereward.paradigms.rating_losses import (
    Objective,
    cross_entropy,
    level_shares,
    ranked_probability_score,
)
from basereward.paradigms.rating_scale import RatingScale
from basereward.paradigms.rubric import Item, rubric_of, shares
from basereward.paradigms.token_nll import mean_nll
from basereward.prepared import Prepared
from basereward.protocols import Backbone, Loss
from basereward.writers.question_tree import encode_answers

NO_RATING = "no rating could be read in what the judge wrote on a response"
"""The reason for a comparison without rewards."""


@dataclass(frozen=True)
class Ratings(Questions):
    """The questions about a comparison's responses, each of which is rated.

    Args:
        tree: N M questions; each branch ends where its answer begins.
        critiques: Tokens of each answer up to its rating; None where they are written.
        shares: [M] what the rating of each item counts in the reward.
    """

    shares: tuple[float, ...]


class Pointwise(Critiquing):
    """A judge that rates one response at a time; the reward is the expected value of its level.

    A template names the levels and their values. The softmax over the logits of the levels' tokens, at the
    place where the level stands, is a distribution over levels, and its mean the reward.

    With a template that has the judge explain first, the judge writes a text for each response, and the level
    stands behind the last lead in it, such as "Final Score: "; a text without a rating is counted, and its
    comparison has no rewards. A comparison whose `meta` has `critiques` is rated by these explanations. A
    template that asks for a number, such as one from 0 to 100, has the number as the reward.

    With a rubric, each of its items is asked about each response, and the reward is the weighted share of
    yes. A comparison whose `meta` has a `rubric` of its own, a list of {"ask": text, "weight": number}, is
    rated by that one.

    Args:
        backbone: Makes hidden states, and has a language-model head, which is this paradigm's head.
        head: Not used: a judge has no reward head.
        loss: Compares expected ratings with ranks, for the objective `reward-loss`.
        template: The judge template that asks for a rating.
        objective: `reward-loss` is the run's loss of the expected ratings, Bradley-Terry unless the run says
            otherwise; `cross-entropy` that of the levels with rows' ratings; `ordinal` their ranked
            probability score, for which a level far off costs more than the next one.
        critique_weight: How much the likelihood of given explanations counts beside that.
        max_critique_tokens: The longest explanation that is written, its rating included.
    """

    reason_for_nan = NO_RATING

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        loss: Loss,
        *,
        template: str = "rating",
        objective: Objective = "reward-loss",
        critique_weight: float = 1.0,
        max_critique_tokens: int = 512,
    ) -> None:
        super().__init__(
            backbone,
            template,
            answers=("rating", "rubric"),
            name="pointwise",
            critique_weight=critique_weight,
            max_critique_tokens=max_critique_tokens,
        )
        assert self.template.scale is not None
        self.scale: RatingScale = self.template.scale
        self.head: LanguageHead = backbone.language_head()
        self.criterion = loss
        self.objective: Objective = objective
        self.is_rubric = self.template.answer == "rubric"
        if self.is_rubric and objective != "reward-loss":
            raise ConfigError(
                f"objective {objective!r} learns from ratings on the levels of one answer; a rubric learns "
                'by "reward-loss"'
            )
        self.answered = AnswerCounts()
        self.reward_unit = self.template.reward_unit
        self.text_key = Critiquing.text_key if self.scale.explains else ""
        self.levels: list[int] = []
        if self.scale.levels:
            [(self.lead, self.levels)] = self._places([""])

    @property
    def writing_head(self) -> LanguageHead:
        """The language-model head."""
        return self.head

    @property
    def statistics(self) -> Mapping[str, float]:
        """Measures of how reliable the ratings so far are, and counts of texts; see `AnswerCounts`."""
        return {**self.answered.statistics, **self.critique_counts}

    def items(self, comparison: Comparison) -> Sequence[Item]:
        """Return the items of a comparison's rubric: its own, or the template's; none without a rubric.

        Raises:
            DataError: When it has none, nor has the template.
        """
        return rubric_of(comparison, self.template.items) if self.is_rubric else ()

    def asked(self, comparison: Comparison) -> list[list[Message]]:
        """Return the questions about a comparison: each item of a rubric about each response."""
        return [
            self.template.messages(comparison.prompt, [response], *(item.ask for item in items))
            for response in comparison.responses
            for items in [[item] for item in self.items(comparison)] or [[]]
        ]

    def given(self, comparison: Comparison) -> list[str | None]:
        """Return the explanation of each rating: none where none is asked for, None where one is written."""
        if self.scale.explains:
            return given_critiques(comparison)
        return [""] * (len(comparison.responses) * (len(self.items(comparison)) or 1))

    def answer_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text up to where its rating stands."""
        if not self.levels:
            return super().answer_ids(texts)
        return [ids for ids, _ in self._places(texts)]

    def prepare(self, comparison: Comparison) -> Prepared[Ratings]:
        """Do what the CPU can do ahead: open images, tokenize.

        Raises:
            DataError: When the comparison can't be encoded, or has no ratings on the scale to learn from.
        """
        if self.training:
            self._check_learnable(comparison)
        item = super().prepare(comparison)
        weights = tuple(shares(self.items(comparison)))
        content = Ratings(item.content.tree, item.content.critiques, weights)
        return Prepared(comparison, content, item.size)

    def loss_of(self, batch: Sequence[Prepared[Ratings]]) -> LossOutput:
        """Return the loss of prepared comparisons."""
        comparisons = [item.comparison for item in batch]
        texts = [ids for item in batch for ids in item.content.critiques]
        ratings = [
            rating for each in comparisons for rating in each.ratings or [math.nan] * len(each.responses)
        ]
        # An explanation is learned up to its lead, and with its level and its end where ratings are on the
        # levels' values, as `reward-loss` doesn't ask for.
        after: list[list[int]] = [[] for _ in texts]
        if self.scale.explains and self.objective != "reward-loss":
            after = [
                [] if ids is None or math.isnan(rating) else self._written(rating)
                for ids, rating in zip(texts, ratings, strict=True)
            ]
        branches = [
            [*(self.lead if ids is None else ids), *more] for ids, more in zip(texts, after, strict=True)
        ]
        forest = self.forest_of(batch, _grouped(branches, batch))
        # The tokens of a response, and of the first item with it.
        lengths = torch.cat(
            [
                part[:: len(item.content.shares)]
                for item, part in zip(batch, forest.lengths.split(_num_questions(batch)), strict=True)
            ]
        )
        targets = Targets.of(comparisons, lengths, forest.ends.device)
        if not self.scale.explains:
            forest = replace(forest, reads="ends")
        hidden = self.backbone(forest)
        back = torch.tensor(list(map(len, after)), device=hidden.device)
        likelihoods = self._likelihoods(hidden.flatten(0, 1).index_select(0, forest.ends - back))  # [n, K]
        rewards = self._rewards(likelihoods, batch)
        learned = [
            [*ids, *more] if ids is not None and self.scale.explains else []
            for ids, more in zip(texts, after, strict=True)
        ]
        learns_texts = self.critique_weight > 0 and any(learned)
        if self.objective == "reward-loss":
            output = apply_loss(self.criterion, rewards, targets)
            return self.with_critiques(output, targets, hidden, forest, learned) if learns_texts else output
        wanted = torch.tensor(ratings, device=hidden.device)  # [N]
        values = self._values(likelihoods)
        is_rated = ~wanted.isnan()
        wanted_shares = level_shares(torch.where(is_rated, wanted, values[0]), values)
        cost = (
            cross_entropy(likelihoods, wanted_shares)
            if self.objective == "cross-entropy"
            else ranked_probability_score(likelihoods, wanted_shares, values)
        )
        if learns_texts:
            cost = cost + self.critique_weight * mean_nll(hidden, forest, self.head, learned)
        weight = is_rated.to(cost.dtype)
        if targets.comparison_weight is not None:
            weight = weight * targets.comparison_weight[targets.group]
        return weighted_mean(cost, weight, rewards, targets)

    @torch.no_grad()
    def score_of(self, batch: Sequence[Prepared[Ratings]]) -> Tensor:
        """Return the rewards [N] of prepared comparisons, in their order; not-a-number for a response whose
        rating can't be read.
        """
        answers: list[list[int] | None] = [ids for item in batch for ids in item.content.critiques]
        num_unreadable = 0
        if self.scale.explains:
            written = [text for texts in self.texts_of(batch) for text in texts]
            read = [self.scale.rating_in(text) for text in written]
            # An explanation that was given is rated as it stands, with a lead where it has none.
            is_read = [
                value is not None or (ids is not None and bool(self.levels))
                for value, ids in zip(read, answers, strict=True)
            ]
            num_unreadable = is_read.count(False)
            if not self.levels:
                self.answered.add(len(read), unreadable=num_unreadable)
                return torch.tensor(
                    [math.nan if value is None else value for value in read], device=self.device
                )
            new = iter(self.answer_ids(written))
            answers = [ids if is_one else None for ids, is_one in zip(new, is_read, strict=True)]
        # One that can't be read is computed all the same, at its lead, and its rating is left out.
        branches = [self.lead if ids is None else ids for ids in answers]
        forest = replace(self.forest_of(batch, _grouped(branches, batch)), reads="ends")
        ends = self.backbone(forest).flatten(0, 1).index_select(0, forest.ends)  # [n, D]
        is_missing = torch.tensor([ids is None for ids in answers], device=ends.device)
        masses = mass_of(self.head, ends, self.levels)[~is_missing].tolist()
        self.answered.add(len(answers), unreadable=num_unreadable, masses=masses)
        likelihoods = torch.where(is_missing[:, None], torch.nan, self._likelihoods(ends))
        return self._rewards(likelihoods, batch)

    def _rewards(self, likelihoods: Tensor, batch: Sequence[Prepared[Ratings]]) -> Tensor:  # [n, K] -> [N]
        """Return the expected value of each response, with the shares of a rubric's items."""
        expected = likelihoods.exp() @ self._values(likelihoods)  # [n]
        parts = zip(batch, expected.split(_num_questions(batch)), strict=True)
        return torch.cat(
            [
                part.reshape(-1, len(item.content.shares)) @ part.new_tensor(item.content.shares)
                for item, part in parts
            ]
        )

    def _likelihoods(self, ends: Tensor) -> Tensor:  # [n, D] -> [n, K]
        """Return the logarithms of the levels' shares, among all levels."""
        logits: Tensor = self.head(ends, torch.tensor(self.levels, device=ends.device))
        return logits.log_softmax(1)

    def _values(self, like: Tensor) -> Tensor:  # [K]
        return torch.tensor(self.scale.values, dtype=like.dtype, device=like.device)

    def _written(self, rating: float) -> list[int]:
        """Return the tokens of the level nearest to a rating, and of the end behind it."""
        values = self.scale.values
        nearest = min(range(len(values)), key=lambda number: abs(values[number] - rating))
        return [self.levels[nearest], *self.end]

    def _places(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Return the tokens of each text up to where a level stands, and the token of each level there.

        The place is where the answers with one level and another begin to differ, so that it is that of the
        tokenizer, whatever it joins.

        Raises:
            ConfigError: When two levels begin with the same token.
        """
        levels = self.scale.levels
        beginnings = [self._beginning(text) for text in texts]
        encoded, _ = encode_answers(
            self.backbone, [beginning + level for beginning in beginnings for level in levels]
        )
        places = []
        for number in range(0, len(encoded), len(levels)):
            each = encoded[number : number + len(levels)]
            place = common_prefix(each)
            first = [ids[place] if place < len(ids) else self.end[0] for ids in each]
            if len(set(first)) < len(first):
                raise ConfigError(
                    f"two of the levels {', '.join(levels)} begin with the same token; give them names that "
                    "don't, such as letters"
                )
            places.append((each[0][:place], first))
        return places

    def _beginning(self, text: str) -> str:
        """Return what stands before a level: a text up to its last lead, or with a lead behind it."""
        lead = self.scale.lead
        beginning = self.scale.beginning_of(text)
        if beginning is not None:
            return beginning + lead[len(lead.rstrip()) :]
        return text.rstrip() + lead if text.strip() else lead.lstrip()

    def _check_learnable(self, comparison: Comparison) -> None:
        """Refuse a comparison that this objective can't learn from.

        Raises:
            DataError: When it has no ratings, or one off the scale.
            ConfigError: When the template asks for a number.
        """
        if not self.levels:
            raise ConfigError(
                f"judge template {self.template.name!r} asks for a number, which has no levels to learn; "
                "train with one of levels"
            )
        if self.objective == "reward-loss":
            return
        if comparison.ratings is None:
            raise DataError(
                f"has no ratings, and the objective {self.objective} learns from nothing else",
                field="ratings",
            )
        low, high = self.scale.values[0], self.scale.values[-1]
        wrong = [rating for rating in comparison.ratings if not low <= rating <= high]
        if wrong:
            raise DataError(
                f"ratings are {low:g} to {high:g}, the values of the template's levels, not {wrong[0]:g}",
                field="ratings",
            )


def _num_questions(batch: Sequence[Prepared[Ratings]]) -> list[int]:
    return [len(item.content.critiques) for item in batch]


def _grouped(answers: Sequence[list[int]], batch: Sequence[Prepared[Ratings]]) -> list[list[list[int]]]:
    """Return answers by comparison."""
    new = iter(answers)
    return [[next(new) for _ in item.content.critiques] for item in batch]
