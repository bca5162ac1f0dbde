"""The critic paradigm: a critique of each response is written first, and the reward is read after it.

As MM-RLHF has it (arXiv 2502.10391, section 4; arXiv 2509.16127, section 4.1, "critic-based").

Shapes: N responses, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from basereward.backbones.lm_head import LanguageHead
from basereward.losses import LossOutput, Targets, apply_loss
from basereward.paradigms.critiquing import Critiquing, Questions
from basereward.prepared import Prepared
from basereward.protocols import Backbone, Head, Loss


class Critic(Critiquing):
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
        super().__init__(
            backbone,
            template,
            answers=("critique",),
            name="critic",
            critique_weight=critique_weight,
            max_critique_tokens=max_critique_tokens,
        )
        self.head = head
        self.criterion = loss
        self.language_head = backbone.language_head()

    @property
    def writing_head(self) -> LanguageHead:
        """The language-model head."""
        return self.language_head

    @property
    def statistics(self) -> Mapping[str, float]:
        """Counts of critiques, as `critique_counts`."""
        return self.critique_counts

    def loss_of(self, batch: Sequence[Prepared[Questions]]) -> LossOutput:
        """Return the loss of prepared comparisons, with the critiques they have."""
        given = [item.content.critiques for item in batch]
        forest = self.forest_of(batch, [[[*(ids or ()), *self.end] for ids in texts] for texts in given])
        targets = Targets.of([item.comparison for item in batch], forest.lengths, forest.ends.device)
        hidden = self.backbone(forest)
        output = apply_loss(self.criterion, self.head(hidden, forest), targets)
        if not self.critique_weight:
            return output
        learned = [[] if ids is None else [*ids, *self.end] for texts in given for ids in texts]
        return self.with_critiques(output, targets, hidden, forest, learned)

    @torch.no_grad()
    def score_of(self, batch: Sequence[Prepared[Questions]]) -> Tensor:
        """Return the rewards [N] of prepared comparisons, in their order; missing critiques are written."""
        texts = self.completed([item.content for item in batch])
        forest = self.forest_of(batch, [[[*each.ids, *self.end] for each in of] for of in texts])
        forest = replace(forest, reads=self.head.reads)
        rewards: Tensor = self.head(self.backbone(forest), forest)
        return rewards
