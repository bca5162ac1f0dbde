"""Backbones that break one promise each; all are `tiny` but for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mutants import Mutant
from torch import Tensor, nn
from torch.nn import functional

from basereward.backbones.tiny import Tiny
from basereward.comparison import Comparison
from basereward.forest import Forest, Tree
from basereward.testing import backbones


class Visible(Forest):
    """A forest whose rule of attention is another one."""

    def visible(self) -> Tensor:
        raise NotImplementedError


def seen_by(rule: type[Visible], forest: Forest) -> Forest:
    """Return a forest with another rule of attention."""
    return rule(**{name: getattr(forest, name) for name in forest.__dataclass_fields__})


class Foreign(nn.Module):
    """Is of no known base, though it has every method."""

    encode = pack = forward = parts = save = lambda self, *given: None


class Liar(Tiny):
    """Says it is twice as wide as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.dim *= 2


class WrongEnds(Tiny):
    """Has the responses' ends in another order."""

    def pack(self, trees: Sequence[Tree], **options: Any) -> Forest:
        forest = super().pack(trees, **options)
        return replace(forest, ends=forest.ends.flip(0))


class Rambles(Tiny):
    """Begins each response with another byte."""

    def encode(self, comparison: Comparison) -> Tree:
        tree = super().encode(comparison)
        start = int(torch.randint(256, ()))
        return replace(tree, responses=[[start, *response] for response in tree.responses])


class Blind(Tiny):
    """Reads the last token alone."""

    def forward(self, forest: Forest) -> Tensor:
        return self.language.norm(self.language.embedding(forest.input_ids)) + 0.0 * super().forward(forest)


class SeesEverything(Visible):
    """Every token sees every other."""

    def visible(self) -> Tensor:
        return torch.ones(self.tree.shape, dtype=torch.bool)[:, None, None]


class ReadsPadding(Tiny):
    """Attends to padding."""

    def forward(self, forest: Forest) -> Tensor:
        return super().forward(seen_by(SeesEverything, forest))


class Normed(Tiny):
    """Subtracts the mean of the batch."""

    def forward(self, forest: Forest) -> Tensor:
        hidden = super().forward(forest)
        return hidden - hidden.mean((0, 1))


class SeesNeighbours(Visible):
    """A response sees those before it."""

    def visible(self) -> Tensor:
        place = torch.arange(self.tree.shape[1])
        return (place[:, None] >= place)[None, None] & (self.tree >= 0)[:, None, None]


class ReadsNeighbours(Tiny):
    """Reads the responses before it."""

    def forward(self, forest: Forest) -> Tensor:
        return super().forward(seen_by(SeesNeighbours, forest))


class CountsColumns(Tiny):
    """Takes a token's column for its position."""

    def forward(self, forest: Forest) -> Tensor:
        positions = torch.arange(forest.input_ids.shape[1]).expand_as(forest.positions)
        return super().forward(replace(forest, positions=positions))


class SaysItCannotShare(Tiny):
    """Says that it shares nothing, and does."""

    shares = False

    def pack(self, trees: Sequence[Tree], *, shared: bool = True, row_tokens: float | None = None) -> Forest:
        from basereward.forest import pack

        return pack(trees, pad=self.pad, shared=shared, row_tokens=row_tokens)


class SeesOtherTrees(Visible):
    """A tree sees those before it in its row."""

    def visible(self) -> Tensor:
        one = replace(self, tree=torch.where(self.tree >= 0, 0, -1))
        return Forest.visible(one)


class MixesTrees(Tiny):
    """Attends to other trees of its row."""

    packs = True

    def forward(self, forest: Forest) -> Tensor:
        return super().forward(seen_by(SeesOtherTrees, forest))


class PrunesTooMuch(Tiny):
    """Leaves out a layer where only the ends are read."""

    def forward(self, forest: Forest) -> Tensor:
        hidden = super().forward(forest)
        return hidden / 2 if forest.reads == "ends" else hidden


class PassesOver(Tiny):
    """Leaves images out without a word."""

    def encode(self, comparison: Comparison) -> Tree:
        return super().encode(comparison.without_images())

    def parts(self) -> Mapping[str, nn.Module]:
        return {"language": self.language}


class Shuffles(Tiny):
    """Sees the mean of all images in the place of each."""

    def forward(self, forest: Forest) -> Tensor:
        media = {name: value.mean(0).expand_as(value) for name, value in forest.media.items()}
        return super().forward(replace(forest, media=media))


class StaysOut(Tiny):
    """Takes no part in reading the images of others."""

    def forward(self, forest: Forest) -> Tensor:
        self.always_runs_vision = False
        return super().forward(forest)


class KeepsTheFirst(Tiny):
    """Keeps the patches of the first image, and takes them for every other."""

    kept: Tensor | None = None
    is_cached = False

    def attach_feature_cache(self, cache: Any, precision: str) -> None:
        self.is_cached = True

    def encode(self, comparison: Comparison) -> Tree:
        tree = super().encode(comparison)
        if not self.is_cached or not tree.media:
            return tree
        if self.kept is None:
            self.kept = tree.media["patches"][:9]
        return replace(tree, media={"patches": self.kept.repeat(len(comparison.images), 1)})


class AlwaysDrops(Tiny):
    """Drops in evaluation too."""

    def forward(self, forest: Forest) -> Tensor:
        return functional.dropout(super().forward(forest), 0.1, training=True)


class Drifts(Tiny):
    """Has a running mean, which training moves."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(self.dim))

    def forward(self, forest: Forest) -> Tensor:
        hidden = super().forward(forest)
        if self.training:
            self.mean += hidden.detach().mean((0, 1))
        return hidden - self.mean


class Forgets(Tiny):
    """Makes a new projector whenever it is loaded."""

    def __init__(self, *, model: str | None = None) -> None:
        super().__init__(model=model)
        if model is not None:
            self.projector.reset_parameters()


class Pickles(Tiny):
    """Writes a pickle."""

    def save(self, directory: Path) -> None:
        super().save(directory)
        torch.save(self.state_dict(), directory / "model.pt")


class Stops(Tiny):
    """Trains no projector, though it says that it does."""

    def forward(self, forest: Forest) -> Tensor:
        self.projector.requires_grad_(False)
        hidden = super().forward(forest)
        self.projector.requires_grad_(True)
        return hidden


class Coarse(Tiny):
    """Loses in bf16 what it adds first and subtracts later."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(self.dim, self.dim)

    def forward(self, forest: Forest) -> Tensor:
        hidden = super().forward(forest)
        return hidden + self.last(hidden + 500.0) - self.last(torch.full_like(hidden, 500.0))

    def parts(self) -> Mapping[str, nn.Module]:
        return {**super().parts(), "language": nn.ModuleList([self.language, self.last])}


class Renames(Tiny):
    """Calls its parts by other names."""

    def parts(self) -> Mapping[str, nn.Module]:
        return {"encoder": self.vision, "projector": self.projector, "language": self.language}


class LeavesOut(Tiny):
    """Forgets a part."""

    def parts(self) -> Mapping[str, nn.Module]:
        return {"vision": self.vision, "language": self.language}


class BackToFront(Tiny):
    """Names its last layer first."""

    def blocks(self) -> list[nn.Module]:
        return super().blocks()[::-1]


DIFFER = "they differ by #; at most # is allowed"
EXACT = "they differ by #; none is allowed"

MUTANTS = [
    Mutant(
        backbones.is_a_backbone,
        Foreign,
        "Foreign is no basereward.backbones.base.Backbone; derive it from that",
    ),
    Mutant(
        backbones.has_its_width,
        Liar,
        "dim is #, but the hidden states of # rows of # tokens have shape [#, #, #], not [#, #, #]",
    ),
    Mutant(
        backbones.gives_every_response_its_end,
        WrongEnds,
        "the ends are of the responses [#, #, #, #, #, #, #, #, #, #], not in their order",
    ),
    Mutant(backbones.encodes_alike_twice, Rambles, "the tokens of row-# differ from call to call"),
    Mutant(
        backbones.reads_the_response,
        Blind,
        "another prompt does not change the state at the response's end",
    ),
    Mutant(backbones.ignores_padding, ReadsPadding, f"hidden states with other tokens in padding: {DIFFER}"),
    Mutant(backbones.ignores_its_batch, Normed, f"hidden states of row-# alone and in a batch: {DIFFER}"),
    Mutant(
        backbones.ignores_other_responses,
        ReadsNeighbours,
        f"hidden states of response # of row-# after another one: {DIFFER}",
    ),
    Mutant(
        backbones.shares_prompts_exactly,
        CountsColumns,
        f"hidden states with prompts shared and with a copy for each response: {DIFFER}",
    ),
    Mutant(
        backbones.shares_prompts_exactly,
        SaysItCannotShare,
        "shares is False, but a row holds several responses",
    ),
    Mutant(
        backbones.packs_exactly,
        MixesTrees,
        f"hidden states with several trees in a row and with one: {DIFFER}",
    ),
    Mutant(
        backbones.computes_what_is_read,
        PrunesTooMuch,
        f'hidden states where only the ends are read (forest.reads = "ends"): {DIFFER}',
    ),
    Mutant(
        backbones.sees_or_refuses_images,
        PassesOver,
        "it has no part that sees, but passes over an image; raise DataError in encode",
    ),
    Mutant(
        backbones.sees_or_refuses_images,
        Shuffles,
        "the order of two images does not change the hidden states",
    ),
    Mutant(
        backbones.takes_part_in_reading_images,
        StaysOut,
        "no gradient of texts with always_runs_vision reaches projector.bias, projector.weight, vision.bias "
        "and others",
    ),
    Mutant(
        backbones.gives_the_same_with_a_cache,
        KeepsTheFirst,
        f"hidden states with a cache, where it was empty, and without one: {DIFFER}",
    ),
    Mutant(
        backbones.is_deterministic_in_eval,
        AlwaysDrops,
        f"hidden states of the same rows, twice in evaluation: {EXACT}",
    ),
    Mutant(
        backbones.is_deterministic_in_eval,
        Drifts,
        f"hidden states in evaluation, before and after a forward pass in training: {EXACT}",
    ),
    Mutant(backbones.saves_and_loads, Forgets, f"hidden states when loaded, and when saved: {EXACT}"),
    Mutant(backbones.saves_and_loads, Pickles, "it saves model.pt, which can run code; write safetensors"),
    Mutant(backbones.passes_gradients_on, Stops, "no gradient reaches projector.bias, projector.weight"),
    Mutant(
        backbones.stays_near_in_bf16,
        Coarse,
        "under bf16 autocast the states are off by # of their size; # is allowed",
    ),
    Mutant(
        backbones.names_its_parts,
        Renames,
        "it has the parts encoder; parts are vision, projector, language",
    ),
    Mutant(backbones.names_its_parts, LeavesOut, "parameter projector.weight is of no part"),
    Mutant(backbones.names_its_blocks, BackToFront, "the forward pass runs the blocks in the order [#, #]"),
]
