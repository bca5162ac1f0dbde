"""Checks of a head: one fp32 reward a response, of that response's states alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from basereward.forest.forest import Forest
from basereward.testing.material import forest_of, forest_padding, hidden_of, trees
from basereward.testing.native.kernels import require_plain_kernels_agree
from basereward.testing.subject import (
    TOLERANCE,
    Subject,
    checks_of,
    require,
    require_alike,
    require_near,
    require_rewards,
)

DIM = 32


def gives_one_reward_a_response(subject: Subject) -> None:
    """Rewards are [N] and finite, whatever number of responses the comparisons have."""
    head = _head(subject)
    for of in (trees(), trees()[:1], trees()[2:]):
        forest = forest_of(of)
        rewards = head(hidden_of(forest, DIM), forest)
        num = len(forest.ends)
        require_rewards(rewards, num, f"for {num} responses it returns")


def gives_fp32(subject: Subject) -> None:
    """Rewards are fp32 for a bf16 backbone, and computed as such under autocast too."""
    head, forest, hidden = _head_and_states(subject)
    exact = _rewards(head, hidden, forest)
    require(exact.dtype == torch.float32, f"of fp32 states it makes {exact.dtype} rewards, not fp32")
    with torch.autocast("cpu", torch.bfloat16):
        cast = _rewards(head, hidden, forest)
        require(cast.dtype == torch.float32, f"under autocast it makes {cast.dtype} rewards, not fp32")
    # Eight bits of mantissa instead of 24 would show as differences of 1e-3 and more.
    require_alike(cast, exact, "rewards under autocast, and without it", tolerance=1e-4)
    rounded = hidden.bfloat16()
    actual = _rewards(head, rounded, forest)
    require(actual.dtype == torch.float32, f"of bf16 states it makes {actual.dtype} rewards, not fp32")
    require_alike(
        actual,
        _rewards(head, rounded.float(), forest),
        "rewards of bf16 states, and of the same in fp32",
        tolerance=1e-4,
    )


def reads_the_response(subject: Subject) -> None:
    """A response's reward changes with its states; a constant is no reward."""
    head, forest, hidden = _head_and_states(subject)
    before = _rewards(head, hidden, forest)
    for number in range(len(forest.ends)):
        changed = torch.where((forest.response == number)[..., None], -hidden, hidden)
        after = _rewards(head, changed, forest)
        require(
            abs(float(after[number] - before[number])) > TOLERANCE,
            f"the reward of response {number} is {float(before[number]):.4g} whatever its states are",
        )


def says_what_it_reads(subject: Subject) -> None:
    """A head whose `reads` is "ends" reads no state but those at `forest.ends`."""
    head = _head(subject)
    reads = head.reads
    require(reads in ("all", "ends"), f"its reads is {reads!r}; allowed: 'all', 'ends'")
    if reads == "all":
        return
    forest = forest_of(trees())
    hidden = hidden_of(forest, DIM)
    changed = torch.full_like(hidden, 1e3)
    changed.flatten(0, 1)[forest.ends] = hidden.flatten(0, 1)[forest.ends]
    require_near(
        _rewards(head, changed, forest),
        _rewards(head, hidden, forest),
        "its reads is 'ends'; rewards with other states elsewhere",
    )


def ignores_padding(subject: Subject) -> None:
    """The hidden states of padding change no reward."""
    head, forest, hidden = _head_and_states(subject)
    filled = torch.where(forest_padding(forest.branch)[..., None], 1e3, hidden)
    require_near(
        _rewards(head, filled, forest),
        _rewards(head, hidden, forest),
        "rewards with 1000 in padding, and with something else there",
    )


def ignores_other_responses(subject: Subject) -> None:
    """Another response, of the same comparison or of another one, changes no reward."""
    head, forest, hidden = _head_and_states(subject)
    before = _rewards(head, hidden, forest)
    for number in range(len(forest.ends)):
        others = (forest.response >= 0) & (forest.response != number)
        changed = torch.where(others[..., None], 3.0 * hidden.flip(-1), hidden)
        require_near(
            _rewards(head, changed, forest)[number],
            before[number],
            f"rewards of response {number} beside other responses",
        )


def follows_the_order_of_ends(subject: Subject) -> None:
    """Rewards come in the order of `forest.ends`, whatever the order of the comparisons is."""
    head = _head(subject)
    in_order = _by_tree(head, trees(), shared=True)
    turned = _by_tree(head, trees()[::-1], shared=True)[::-1]
    for number, (expected, actual) in enumerate(zip(in_order, turned, strict=True)):
        require_near(actual, expected, f"rewards of comparison {number} as the first and the last of a batch")


def is_the_same_with_prompts_shared(subject: Subject) -> None:
    """Rewards are the same with prompts shared and with a copy for each response."""
    head = _head(subject)
    shared, apart = (torch.cat(_by_tree(head, trees(), shared=shared)) for shared in (True, False))
    require_near(shared, apart, "rewards with the prompt shared, and with a copy for each")


def passes_gradients_on(subject: Subject) -> None:
    """Every parameter that is trained, and every response's states, get a gradient."""
    head = _head(subject).train()
    forest = forest_of(trees())
    hidden = hidden_of(forest, DIM).requires_grad_()
    rewards = head(hidden, forest)
    # Weighed unequally: a head may be blind to what all rewards have in common.
    (rewards * torch.linspace(-1, 2, len(rewards))).sum().backward()
    for name, parameter in head.named_parameters():
        if parameter.requires_grad:
            require(parameter.grad is not None, f"parameter {name} gets no gradient")
            require(bool(parameter.grad.isfinite().all()), f"the gradient of parameter {name} is not finite")
    require(hidden.grad is not None, "the hidden states get no gradient")
    for number in range(len(forest.ends)):
        gradient = torch.zeros_like(hidden) if hidden.grad is None else hidden.grad[forest.response == number]
        require(gradient.any(), f"the states of response {number} get no gradient")


def saves_and_loads(subject: Subject) -> None:
    """The state dict holds all that rewards depend on."""
    head, forest, hidden = _head_and_states(subject)
    other = _head(subject, seed=1)
    other.load_state_dict(head.state_dict(), strict=True)
    require_alike(
        _rewards(other, hidden, forest),
        _rewards(head, hidden, forest),
        "rewards of a head, and of another one with its state dict",
    )


def is_deterministic_in_eval(subject: Subject) -> None:
    """In evaluation the same states give the same rewards bit for bit, after a training step too."""
    head, forest, hidden = _head_and_states(subject)
    before = _rewards(head, hidden, forest)
    require_alike(_rewards(head, hidden, forest), before, "rewards of the same states, twice in evaluation")
    head.train()
    head(hidden, forest)
    head.eval()
    require_alike(
        _rewards(head, hidden, forest),
        before,
        "rewards in evaluation, before and after a forward pass in training",
    )


def agrees_with_the_plain_kernels(subject: Subject) -> None:
    """The compiled kernels give the rewards and the gradients that BASEREWARD_KERNELS=torch gives."""
    head = _head(subject)
    forest = forest_of(trees())
    parameters = {name: value for name, value in head.named_parameters() if value.requires_grad}

    def results() -> dict[str, Tensor]:
        hidden = hidden_of(forest, DIM).requires_grad_()
        rewards = head(hidden, forest)
        weighed = (rewards * torch.linspace(-1, 2, len(rewards))).sum()
        leaves = {"the hidden states": hidden, **parameters}
        actual = torch.autograd.grad(weighed, list(leaves.values()))
        gradients = {f"the gradient of {name}": value for name, value in zip(leaves, actual, strict=True)}
        return {"rewards": rewards, **gradients}

    require_plain_kernels_agree(results)


def _head(subject: Subject, seed: int = 0) -> Any:
    return subject.build(DIM, seed=seed).eval()


def _head_and_states(subject: Subject) -> tuple[Any, Forest, Tensor]:
    """Return the head, a forest, and its hidden states."""
    forest = forest_of(trees())
    return _head(subject), forest, hidden_of(forest, DIM)


@torch.no_grad()
def _rewards(head: Any, hidden: Tensor, forest: Forest) -> Tensor:
    rewards: Tensor = head(hidden, forest)
    return rewards


def _by_tree(head: Any, of: list[Any], *, shared: bool) -> list[Tensor]:
    forest = forest_of(of, shared=shared)
    return list(_rewards(head, hidden_of(forest, DIM), forest).split(list(forest.num_responses)))


CHECKS = checks_of(__name__)
