"""Asking a model about responses, with the question and its images read once for all that is asked.

Shapes: A position axes, P prompt tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from basereward.backbones.opened_turn import Turn, asking
from basereward.comparison import Comparison
from basereward.errors import DataError, TooLongError
from basereward.forest.forest import Tree
from basereward.message import Message
from basereward.ops import common_prefix
from basereward.protocols import Backbone

PLACEHOLDER_ANSWER = "-"
"""Stands for an answer where only what comes before it is wanted."""


def question_tree(
    backbone: Backbone,
    questions: Sequence[Sequence[Message]],
    *,
    reserve_tokens: int,
    turn: Turn = "finished",
) -> Tree:
    """Return a tree that branches where questions begin to differ; each branch ends where its answer begins.

    Images are opened once: what follows them is encoded without.

    Args:
        backbone: Encodes.
        questions: What is asked; all begin alike, and images stand in what is alike.
        reserve_tokens: Tokens left for an answer.
        turn: The turn of the assistant in which an answer is given.

    Raises:
        DataError: When one can't be encoded, or is longer than the backbone's `max_tokens` allows.
    """
    with asking(turn):
        whole = backbone.encode(Comparison(questions[0], [PLACEHOLDER_ANSWER]))
        without = [
            backbone.encode(Comparison(_without_images(each), [PLACEHOLDER_ANSWER])).prompt
            for each in questions
        ]
    shared = min(common_prefix(without), min(map(len, without)) - 1)
    tails = [ids[shared:] for ids in without]
    place = len(whole.prompt) - len(tails[0])
    rest = whole.positions[:, place:]
    start = int(rest[0, 0])
    if whole.prompt[place:] != tails[0] or not bool((rest == start + torch.arange(len(tails[0]))).all()):
        raise DataError("the images of what is asked don't stand before the responses", field="prompt")
    limit = None if backbone.limit is None else backbone.limit.max_tokens
    longest = max(map(len, tails))
    if limit is not None and place + longest + reserve_tokens > limit:
        raise TooLongError(
            f"the question and an answer are {place + longest} + {reserve_tokens} tokens; "
            f"max_tokens is {limit}",
            field="responses",
        )
    return Tree(whole.prompt[:place], tails, whole.positions[:, :place], start, whole.media, whole.patches)


def encode_answers(
    backbone: Backbone, answers: Sequence[str], *, turn: Turn = "finished"
) -> tuple[list[list[int]], list[int]]:
    """Return the tokens of answers, of which an empty one has none, and those that end one."""
    with asking(turn):
        first, second = backbone.encode(Comparison("-", ["a", "b"])).responses
        num_end = common_prefix([first[::-1], second[::-1]])
        texts = [answer for answer in answers if answer.strip()]
        encoded = iter(backbone.encode(Comparison("-", texts)).responses if texts else ())
    end = first[len(first) - num_end :]
    ids = [next(encoded)[: -len(end)] if answer.strip() else [] for answer in answers]
    return ids, end


def _without_images(question: Sequence[Message]) -> list[Message]:
    return [
        message.with_content([part for part in message.content if isinstance(part, str)])
        for message in question
    ]
