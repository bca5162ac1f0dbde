"""Checks of a paradigm: a comparison's rewards don't depend on its batch, and training moves the head."""

from __future__ import annotations

from typing import Any

import torch

from basereward.backbones.tiny import Tiny
from basereward.config.conversion import Component
from basereward.losses import BradleyTerry, LossOutput
from basereward.prepared import Prepared
from basereward.testing.material import comparisons
from basereward.testing.subject import (
    Subject,
    checks_of,
    require,
    require_alike,
    require_near,
    require_rewards,
)

NUM_IMAGES = (0, 1, 2)


def gives_one_fp32_reward_a_response(subject: Subject) -> None:
    """Rewards are [N], fp32, finite, without a graph, in the comparisons' order."""
    paradigm, rows = _paradigm(subject), _rows()
    rewards = paradigm.score(rows)
    num = sum(len(row.responses) for row in rows)
    require_rewards(rewards, num, f"for {num} responses score returns")
    require(rewards.dtype == torch.float32, f"its rewards are {rewards.dtype}, not fp32")
    require(not rewards.requires_grad, "score keeps the graph of its rewards; compute them without one")


def ignores_its_batch(subject: Subject) -> None:
    """A comparison alone, and in any place of a batch, has the same rewards."""
    paradigm, rows = _paradigm(subject), _rows()
    sizes = [len(row.responses) for row in rows]
    together = paradigm.score(rows).split(sizes)
    turned = paradigm.score(rows[::-1]).split(sizes[::-1])[::-1]
    for number, row in enumerate(rows):
        for name, actual in (("alone", paradigm.score([row])), ("in another order", turned[number])):
            require_near(actual, together[number], f"rewards of {row.id} {name} and in a batch")


def agrees_with_what_is_prepared(subject: Subject) -> None:
    """`score` and `loss` of comparisons equal `score_of` and `loss_of` of prepared ones."""
    paradigm, rows = _paradigm(subject), _rows()
    prepared = [paradigm.prepare(row) for row in rows]
    for item in prepared:
        require(
            isinstance(item, Prepared),
            f"prepare returns a {type(item).__name__}, not a basereward.prepared.Prepared",
        )
    require_near(
        paradigm.score_of(prepared),
        paradigm.score(rows),
        "rewards of prepared comparisons, and of comparisons",
    )
    require_near(
        paradigm.loss_of(prepared).loss,
        paradigm.loss(rows).loss,
        "the loss of prepared comparisons, and of comparisons",
    )


def gives_a_loss_output(subject: Subject) -> None:
    """The loss is a `LossOutput` whose loss * weight adds up over batches."""
    paradigm, rows = _paradigm(subject), _rows()
    parts = [paradigm.loss(of) for of in (rows[:1], rows[1:], rows)]
    for output in parts:
        require(isinstance(output, LossOutput), f"loss returns a {type(output).__name__}, not a LossOutput")
    first, second, both = (output.loss * output.weight for output in parts)
    require_near(first + second, both, "loss * weight of two batches added up, and of both together")


def passes_gradients_on(subject: Subject) -> None:
    """The loss reaches the head and the backbone."""
    paradigm = _paradigm(subject).train()
    paradigm.loss(_rows()).loss.backward()
    for name, module in (("head", paradigm.head), ("backbone", paradigm.backbone)):
        gradients = [parameter.grad for parameter in module.parameters()]
        require(
            any(gradient is not None and gradient.any() for gradient in gradients),
            f"no gradient of the loss reaches the {name}",
        )


def is_deterministic_in_eval(subject: Subject) -> None:
    """In evaluation the same comparisons have the same rewards bit for bit."""
    paradigm, rows = _paradigm(subject), _rows()
    before = paradigm.score(rows)
    require_alike(paradigm.score(rows), before, "rewards of the same comparisons, twice in evaluation")
    paradigm.train()
    paradigm.loss(rows)
    paradigm.eval()
    require_alike(paradigm.score(rows), before, "rewards in evaluation, before and after a loss in training")


def saves_and_loads(subject: Subject) -> None:
    """The state dicts of its child modules hold all that it has besides the backbone."""
    paradigm, other = _paradigm(subject), _paradigm(subject, seed=1)
    for name, module in paradigm.named_children():
        getattr(other, name).load_state_dict(module.state_dict(), strict=True)
    rows = _rows()
    require_alike(
        other.score(rows),
        paradigm.score(rows),
        "rewards of one that has the state dicts of another's modules, and of that one",
    )


def _paradigm(subject: Subject, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    backbone = Tiny(dim=16)
    head = subject.plugins.build("head", Component(subject.head, {}), 16)
    return subject.build(backbone, head, BradleyTerry(), seed=seed).eval()


def _rows() -> list[Any]:
    return list(comparisons(NUM_IMAGES))


CHECKS = checks_of(__name__)
