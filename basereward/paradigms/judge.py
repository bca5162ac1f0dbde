"""The common part of paradigms that put questions to a model, by a judge template.

Shapes: n questions, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from basereward.errors import ConfigError
from basereward.paradigms.base import Paradigm
from basereward.paradigms.judge_template import Answer, JudgeTemplate
from basereward.protocols import Backbone


class Judge(Paradigm):
    """Base of paradigms that ask by a template, with a backbone that has a language-model head.

    Args:
        backbone: Makes hidden states.
        template: The name of the template.
        answers: The answers that a template may ask for, the one for messages first.
        name: The paradigm's name, for messages.
    """

    def __init__(self, backbone: Backbone, template: str, *, answers: tuple[Answer, ...], name: str) -> None:
        super().__init__()
        self.template = JudgeTemplate.load(template)
        if self.template.answer not in answers:
            raise ConfigError(
                f"judge template {template!r} asks for a {self.template.answer}; {name} needs one that asks "
                f"for a {answers[0]}"
            )
        self.backbone = backbone

    @property
    def template_digest(self) -> str:  # type: ignore[override]
        """Digests of the chat template, which the backbone may take another of, and of the judge template."""
        return f"{self.backbone.template_digest}+{self.template.digest}"


def mass_of(head: nn.Module, ends: Tensor, tokens: Sequence[int]) -> Tensor:  # [n, D] -> [n]
    """Return the probability that one of some tokens comes next."""
    allowed = head(ends, torch.tensor(tokens, device=ends.device))
    mass: Tensor = (allowed.logsumexp(1) - head(ends).logsumexp(1)).exp()
    return mass
