"""Heads, and components in general, that break one promise each."""

from __future__ import annotations

from pathlib import Path

import torch
from mutants import Mutant
from torch import Tensor, nn
from torch.nn import functional

from basereward.forest import Forest
from basereward.heads import MLP, Linear, gather
from basereward.testing import components, heads


class Undocumented(MLP):
    __doc__ = None


class TakesTwo(MLP):
    """Wants more than the width."""

    def __init__(self, dim: int, depth: int = 1) -> None:
        super().__init__(dim)


class TakesAnything(MLP):
    """Hides its options."""

    def __init__(self, dim: int, **options: object) -> None:
        super().__init__(dim)


class Untyped(MLP):
    """Has an option of unknown type."""

    def __init__(self, dim: int, *, scale=1.0) -> None:
        super().__init__(dim)


class DefaultsToNone(MLP):
    """Has an option whose default is not of its type."""

    def __init__(self, dim: int, *, scale: float = None) -> None:  # type: ignore[assignment]  # noqa: RUF013
        super().__init__(dim)


class NeedsScale(MLP):
    """Has an option without default."""

    def __init__(self, dim: int, *, scale: float) -> None:
        super().__init__(dim)


class MisspellsReads(nn.Module):
    """Misspells an optional member of its contract."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, 1)
        self.read = "ends"

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:
        return self.layer(gather(hidden, forest, "last"))[:, 0]


class HasPath(MLP):
    """Has an option that JSON doesn't know."""

    def __init__(self, dim: int, *, directory: Path = Path("here")) -> None:
        super().__init__(dim)


class KeepsDimension(MLP):
    """Gives [N, 1]."""

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:
        return super().forward(hidden, forest)[:, None]


class Plain(nn.Module):
    """Computes in whatever type it finds."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, 1)

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:
        return self.layer(hidden.flatten(0, 1)[forest.ends])[:, 0]


class CastsLate(Plain):
    """Computes in bf16 and gives fp32."""

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:
        return super().forward(hidden, forest).float()


class ReadsThePrompt(MLP):
    """Reads the first token of the row."""

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:
        return super().forward(hidden[:, :1].expand_as(hidden), forest)


class SaysEnds(MLP):
    """Reads all tokens of a response, and says that it reads the last one."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, pooling="mean")
        self.reads = "ends"


class ReadsPadding(MLP):
    """Reads the mean of the row, padding included."""

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:
        return super().forward(hidden + hidden.mean(1, keepdim=True), forest)


class Centred(MLP):
    """Gives rewards relative to the batch."""

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:
        rewards = super().forward(hidden, forest)
        return rewards - rewards.mean()


class Backwards(MLP):
    """Gives the last response's reward first."""

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:
        return super().forward(hidden, forest).flip(0)


class CountsColumns(MLP):
    """Prefers responses that stand further to the right."""

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:
        return super().forward(hidden, forest) + 0.1 * (forest.ends % hidden.shape[1])


class Detached(MLP):
    """Keeps gradients from the backbone."""

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:
        return super().forward(hidden.detach(), forest)


class Unused(MLP):
    """Has a parameter that does nothing."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.scale = nn.Parameter(torch.ones(1))


class Forgetful(MLP):
    """Has a weight that is in no state dict."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.scale = 1 + float(torch.rand(()))

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:
        return self.scale * super().forward(hidden, forest)


class AlwaysDrops(Linear):
    """Drops in evaluation too."""

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:
        return super().forward(functional.dropout(hidden, 0.5, training=True), forest)


class Learns(MLP):
    """Counts the forward passes of training."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:
        if self.training:
            self.passes += 1
        return super().forward(hidden, forest) + self.passes


class CompiledOtherwise(MLP):
    """Differs where kernels are compiled."""

    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:
        from basereward.ops._loader import library

        return super().forward(hidden, forest) + library.compiled("cpu")


DIFFER = "they differ by #; at most # is allowed"

MUTANTS = [
    Mutant(
        components.has_a_docstring,
        Undocumented,
        "class Undocumented has no docstring; say in one line what it does",
    ),
    Mutant(
        components.is_wired_by_position,
        TakesTwo,
        "the constructor takes (dim, depth) by position; a head's is (dim, *, ...)",
    ),
    Mutant(
        components.is_wired_by_position,
        TakesAnything,
        "the constructor takes *options, which hides its options; name each",
    ),
    Mutant(
        components.has_typed_options, Untyped, "broken_heads:Untyped: option 'scale' has no type annotation"
    ),
    Mutant(components.has_typed_options, DefaultsToNone, "option 'scale' is float; None is none"),
    Mutant(components.has_typed_options, NeedsScale, "option 'scale' has no default"),
    Mutant(
        components.misspells_no_member,
        MisspellsReads,
        "it defines 'read', no member of a head; did you mean 'reads'?",
    ),
    Mutant(
        components.keeps_its_options,
        HasPath,
        "its options can't be written as JSON: Object of type PosixPath is not JSON serializable",
    ),
    Mutant(heads.gives_one_reward_a_response, KeepsDimension, "for # responses it returns [#, #], not [#]"),
    Mutant(heads.gives_fp32, Plain, "under autocast it makes torch.bfloat16 rewards, not fp32"),
    Mutant(heads.gives_fp32, CastsLate, f"rewards under autocast, and without it: {DIFFER}"),
    Mutant(heads.reads_the_response, ReadsThePrompt, "the reward of response # is # whatever its states are"),
    Mutant(
        heads.says_what_it_reads,
        SaysEnds,
        f"its reads is 'ends'; rewards with other states elsewhere: {DIFFER}",
    ),
    Mutant(
        heads.ignores_padding,
        ReadsPadding,
        f"rewards with # in padding, and with something else there: {DIFFER}",
    ),
    Mutant(heads.ignores_other_responses, Centred, f"rewards of response # beside other responses: {DIFFER}"),
    Mutant(
        heads.follows_the_order_of_ends,
        Backwards,
        f"rewards of comparison # as the first and the last of a batch: {DIFFER}",
    ),
    Mutant(
        heads.is_the_same_with_prompts_shared,
        CountsColumns,
        f"rewards with the prompt shared, and with a copy for each: {DIFFER}",
    ),
    Mutant(heads.passes_gradients_on, Detached, "the hidden states get no gradient"),
    Mutant(heads.passes_gradients_on, Unused, "parameter scale gets no gradient"),
    Mutant(
        heads.saves_and_loads,
        Forgetful,
        "rewards of a head, and of another one with its state dict: they differ by #; none is allowed",
    ),
    Mutant(
        heads.is_deterministic_in_eval,
        AlwaysDrops,
        "rewards of the same states, twice in evaluation: they differ by #; none is allowed",
    ),
    Mutant(
        heads.is_deterministic_in_eval,
        Learns,
        "rewards in evaluation, before and after a forward pass in training: they differ by #; "
        "none is allowed",
    ),
    Mutant(
        heads.agrees_with_the_plain_kernels,
        CompiledOtherwise,
        f"rewards of the compiled kernels, and of plain torch: {DIFFER}",
    ),
]
