"""The paradigm of step rewards: one forward pass of a solution gives a reward at the end of each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

from basereward.comparison import Comparison
from basereward.errors import ConfigError
from basereward.forest.forest import Tree
from basereward.paradigms.scalar import Scalar
from basereward.protocols import Backbone, Head, Loss
from basereward.writers.question_tree import encode_answers


class Steps(Scalar):
    """Backbone, head and loss, whose rewards are read at the last token of a response's text.

    The steps of a solution are given as responses, each of which is the solution up to the end of a step. A
    response that continues the one before it shares its tokens: S steps cost one forward pass over the whole
    solution, and each has exactly the reward that it would have alone. A reward above 0 says that the step is
    right, where the loss is `binary-cross-entropy`.

    What the chat template writes after a response is left out, since in the middle of a solution it isn't
    there. A response whose tokens don't begin with those of the one before, where the tokenizer joins the end
    of a step with what follows, is a branch of its own; so let steps end with line breaks.

    Args:
        backbone: Makes hidden states of comparisons.
        head: Makes rewards of hidden states; it must read the last token alone.
        loss: Compares rewards with ratings.
        share_prompts: Whether a comparison's responses share one copy of their prompt.
    """

    shares_backbone = False  # its trees are not those of other paradigms
    reading: ClassVar[str] = "last token of the text"

    def __init__(self, backbone: Backbone, head: Head, loss: Loss, *, share_prompts: bool = True) -> None:
        if head.reads != "ends":
            raise ConfigError('the paradigm "steps" reads single tokens; leave out the head\'s pooling')
        super().__init__(backbone, head, loss, share_prompts=share_prompts)

    @cached_property
    def _closing(self) -> list[int]:
        """The tokens that the backbone's chat template writes after a response."""
        return encode_answers(self.backbone, [])[1]

    def encode(self, comparison: Comparison) -> Tree:
        """Return the tokens of a comparison, where a response that continues another shares its own."""
        tree = self.backbone.encode(comparison)
        ends = len(self._closing)
        texts = [
            ids[: len(ids) - ends] if ids[len(ids) - ends :] == self._closing and len(ids) > ends else ids
            for ids in tree.responses
        ]
        responses, leads, reads = _chained(texts, tree.all_leads)
        return replace(tree, responses=responses, leads=leads, reads=reads)


def _chained(
    texts: Sequence[list[int]], leads: Sequence[int]
) -> tuple[list[list[int]], list[int], list[list[int]]]:
    """Return branches in which each text continues the one before it where it can, with their leads and the
    places of the texts' last tokens.
    """
    responses: list[list[int]] = []
    branch_leads: list[int] = []
    reads: list[list[int]] = []
    for ids, lead in zip(texts, leads, strict=True):
        is_continued = bool(responses) and ids[: len(responses[-1])] == responses[-1]
        if is_continued and lead == branch_leads[-1]:
            responses[-1] = ids
            reads[-1].append(len(ids) - 1)
        else:
            responses.append(ids)
            branch_leads.append(lead)
            reads.append([len(ids) - 1])
    return responses, branch_leads, reads
