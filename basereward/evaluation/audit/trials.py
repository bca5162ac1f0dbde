"""Trials: responses that an audit puts to a model under a prompt, and their rewards.

Of a model whose rewards don't depend on the responses beside them, all trials of a row under one prompt are
one comparison, and so one tree: the prompt is computed once, and a response that several trials have is
scored once. A judge compares, so that each of its trials is a comparison of its own.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.message import Message
from basereward.protocols import Scorer
from basereward.scoring.ordered import placed, score_in_order

if TYPE_CHECKING:
    from basereward.paradigms.verdicts import Verdicts


@dataclass(frozen=True, slots=True)
class Trial:
    """Responses to put to a model under a prompt.

    Attributes:
        row: The comparison that it is of.
        name: Its name, one of a kind within the row.
        scene: The name of the prompt; trials of a row with one name have the same prompt.
        prompt: Messages.
        responses: The responses [n].
    """

    row: int
    name: str
    scene: str
    prompt: tuple[Message, ...]
    responses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of some trials.

    Attributes:
        num_forests: Comparisons that were scored, each a tree with its prompt.
        num_responses: Their responses.
        num_tokens: Their tokens, each prompt counted once for each tree; 0 of a baseline.
    """

    num_forests: int
    num_responses: int
    num_tokens: int


@dataclass
class Rewards:
    """The rewards of trials.

    Attributes:
        of_trial: By name and row, the rewards [n].
        errors: By row and name, why there are none.
        verdicts: A judge's verdicts, by row and name.
        costs: By part of the audit.
    """

    of_trial: dict[str, dict[int, tuple[float, ...]]] = field(default_factory=lambda: defaultdict(dict))
    errors: dict[tuple[int, str], DataError] = field(default_factory=dict)
    verdicts: dict[tuple[int, str], Verdicts] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)


def score_trials(
    model: Scorer[list[float]],
    trials: Iterable[Trial],
    rewards: Rewards,
    *,
    part: str,
    batch_size: int,
    rows: Sequence[Comparison],
    shares: bool = True,
    advance: Callable[[], object] = lambda: None,
) -> None:
    """Score trials, and add their rewards and their cost to `rewards`.

    Args:
        model: Scores.
        trials: The trials, those of a row and scene one after the other; read as they are needed, since
            they hold images.
        rewards: Takes their rewards.
        part: The part of the audit that pays for them.
        batch_size: Comparisons a forward pass.
        rows: The comparisons that the trials are of.
        shares: Whether trials of a row and scene share a tree, where the model's rewards allow it.
        advance: Called as each comparison is done.
    """
    waiting: deque[list[Trial]] = deque()

    def comparisons() -> Iterator[Comparison]:
        by_scene = shares and not model.is_comparative
        for _, group in groupby(trials, lambda trial: (trial.row, trial.scene if by_scene else trial.name)):
            waiting.append(list(group))
            yield _comparison(waiting[-1], rows[waiting[-1][0].row])

    is_judge = model.is_comparative and len(model.models) == 1 and not model.is_ensemble
    tokens, num_forests, num_responses = model.num_tokens, 0, 0
    recording: AbstractContextManager[dict[int, Verdicts]] = nullcontext({})
    if is_judge:
        recording = model.models[0].paradigm.recording_verdicts()
    with recording as recorded:
        for item, result in score_in_order(model, comparisons(), batch_size=batch_size, advance=advance):
            assert isinstance(item, Comparison)
            group = waiting.popleft()
            num_forests += 1
            num_responses += len(item.responses)
            # By text where trials share a tree, in which each text is there once.
            reward_of: dict[str, float] = {}
            if not isinstance(result, DataError):
                reward_of = dict(zip(item.responses, result, strict=True))
            verdicts = recorded.pop(id(item), None)
            for trial in group:
                key = (trial.row, trial.name)
                if isinstance(result, DataError):
                    rewards.errors[key] = placed(result, rows[trial.row])
                elif len(group) == 1:
                    rewards.of_trial[trial.name][trial.row] = tuple(result)
                else:
                    rewards.of_trial[trial.name][trial.row] = tuple(
                        reward_of[response] for response in trial.responses
                    )
                if verdicts is not None:
                    rewards.verdicts[key] = verdicts
    rewards.costs[part] = Cost(num_forests, num_responses, model.num_tokens - tokens)


def _comparison(group: Sequence[Trial], row: Comparison) -> Comparison:
    """Return the comparison of a group's responses.

    Those of several trials are each there once, and in an order that is drawn: a model that pays for a place
    then pays no edit for it.
    """
    first = group[0]
    responses = list(first.responses)
    if len(group) > 1:
        responses = list(dict.fromkeys(response for trial in group for response in trial.responses))
        random.Random(f"{first.row} {first.scene}").shuffle(responses)
    return Comparison(first.prompt, responses, id=row.id, source=row.source, place=row.place)
