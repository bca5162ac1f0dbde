"""Forests: batches of comparisons in which every prompt is encoded once and its responses branch off it.

In the field's words: prefix-sharing batches (tree attention, packed).

Shapes: B rows, L tokens in a row, N responses, P prompt tokens, R response tokens, A position axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from basereward import ops
from basereward.forest.kv_cache import PrefixKVCache
from basereward.forest.packed_runs import PackedRuns, packed_runs
from basereward.hardware.transfer import moved

IGNORED = -1
"""Branch and response number of a padding token."""


@dataclass(frozen=True)
class Tree:
    """One comparison in tokens: a prompt and the responses that continue it.

    Args:
        prompt: Token ids of the prompt, image tokens included.
        responses: Token ids of each response, its end token last.
        positions: Positions of the prompt's tokens on each axis; one axis for text models, three for M-RoPE.
        start: The position, the same on every axis, at which each response begins.
        media: Tensors of the prompt's images, joined over the images along the first dimension.
        patches: Patches of the images; None for as many as the largest of the media has rows.
        leads: How many first tokens of each response belong to the prompt, and count in none of its means and
            lengths; empty for none.
        reads: The tokens of each response, counted from 0 and in ascending order, at which it is read; empty
            for the last one of each. A response that is read in several places stands for as many responses,
            each of which continues the one before.
    """

    prompt: list[int]
    responses: list[list[int]]
    positions: Tensor  # [A, P]
    start: int
    media: Mapping[str, Tensor] = field(default_factory=dict)
    patches: int | None = None
    leads: Sequence[int] = ()
    reads: Sequence[Sequence[int]] = ()

    @classmethod
    def of_text(cls, prompt: list[int], responses: list[list[int]], leads: Sequence[int] = ()) -> Tree:
        """Make a tree whose positions simply count the tokens."""
        return cls(prompt, responses, torch.arange(len(prompt))[None], len(prompt), leads=leads)

    @classmethod
    def of_sequences(cls, sequences: Sequence[Sequence[int]]) -> Tree:
        """Make a text tree of whole token sequences, whose prompt is their common prefix.

        Args:
            sequences: Token ids of prompt and response together, of each response; none may be empty.

        Raises:
            ValueError: When there is no sequence, or an empty one.
        """
        if not sequences or not all(len(ids) for ids in sequences):
            raise ValueError(f"needs sequences of 1 token or more, not {[len(ids) for ids in sequences]}")
        # Every response keeps a token of its own, at which its reward is read.
        length = min(ops.common_prefix(sequences), min(map(len, sequences)) - 1)
        return cls.of_text(list(sequences[0][:length]), [list(ids[length:]) for ids in sequences])

    @property
    def num_patches(self) -> int:
        """Patches of the prompt's images; rows of the largest of the media where `patches` is None."""
        if self.patches is not None:
            return self.patches
        return max((len(value) for value in self.media.values()), default=0)

    @property
    def all_leads(self) -> Sequence[int]:
        """The number of first tokens of each response that belong to the prompt."""
        return self.leads or [0] * len(self.responses)

    @property
    def all_reads(self) -> Sequence[Sequence[int]]:
        """The tokens of each response at which it is read."""
        return self.reads or [[len(response) - 1] for response in self.responses]

    @property
    def is_read_at_ends(self) -> bool:
        """Whether each response is read at its last token alone."""
        return all(
            list(reads) == [len(ids) - 1] for ids, reads in zip(self.responses, self.all_reads, strict=True)
        )

    @property
    def num_reads(self) -> int:
        """The number of places at which the responses are read: of rewards."""
        return sum(map(len, self.all_reads))

    def branches(self) -> list[Tree]:
        """Return each response as a tree of its own, the form without sharing."""
        parts = zip(self.responses, self.all_leads, self.all_reads, strict=True)
        return [
            replace(self, responses=[response], leads=[lead], reads=[reads] if self.reads else ())
            for response, lead, reads in parts
        ]

    def branching_at(self, length: int) -> Tree:
        """Return the same tree whose prompt ends earlier; the texts after that are each response's."""
        moved = self.prompt[length:]
        return replace(
            self,
            prompt=self.prompt[:length],
            responses=[[*moved, *response] for response in self.responses],
            positions=self.positions[:, :length],
            start=self.start - len(moved),
            leads=[lead + len(moved) for lead in self.all_leads],
            reads=[[read + len(moved) for read in reads] for reads in self.reads],
        )

    def __len__(self) -> int:
        return len(self.prompt) + sum(len(response) for response in self.responses)


@dataclass(frozen=True)
class Span:
    """The place of a tree: its row, its first column, and the lengths of its prompt and responses."""

    row: int
    start: int
    prompt: int
    responses: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The column after the tree's last token."""
        return self.start + self.prompt + sum(self.responses)


@dataclass(frozen=True)
class Forest:
    """A packed batch of trees, padded on the right.

    Attention in a forest follows one rule (`visible`): token j is visible to token i when both are in the
    same tree, j is not after i, and j is in the prompt or in i's own branch. So a response sees what it would
    see alone.
    """

    input_ids: Tensor  # [B, L]
    tree: Tensor  # [B, L] number of the tree, -1 in padding
    branch: Tensor  # [B, L] 0 in the prompt, i + 1 in response i, -1 in padding
    response: Tensor  # [B, L] number of the read response in the batch, -1 in prompts and padding
    positions: Tensor  # [A, B, L]
    ends: Tensor  # [N] flat index into B * L of the token that each response is read at, most often its last
    lengths: Tensor  # [N] tokens of each response, of one that continues another its own
    num_responses: tuple[int, ...]  # of each comparison
    spans: tuple[Span, ...]  # of each tree, in the order of the rows
    media: Mapping[str, Tensor]
    read_on_cpu: frozenset[str] = frozenset()  # names of media that `to` leaves where they are
    reads: Literal["all", "ends"] = "all"  # which hidden states are read; the others may be anything
    kv_cache: PrefixKVCache | None = None  # of trees whose responses are decoded further
    packed: PackedRuns | None = None  # what a GPU's attention reads, which `to` makes and moves

    @classmethod
    def of_ends(cls, lengths: Tensor, num_responses: Sequence[int]) -> Forest:
        """Return the forest for hidden states [1, N, D] of the ends alone: one token a response, no prompt.

        Args:
            lengths: [N] tokens of each response.
            num_responses: Of each comparison.
        """
        numbers = torch.arange(len(lengths), device=lengths.device)
        tree = torch.arange(len(num_responses)).repeat_interleave(torch.tensor(num_responses))
        starts = [0, *accumulate(num_responses)]
        branch = torch.arange(len(tree)) - torch.tensor(starts)[tree] + 1
        return cls(
            input_ids=torch.zeros_like(numbers)[None],
            tree=moved(tree, lengths.device)[None],
            branch=moved(branch, lengths.device)[None],
            response=numbers[None],
            positions=torch.zeros_like(numbers)[None, None],
            ends=numbers,
            lengths=lengths,
            num_responses=tuple(num_responses),
            spans=tuple(
                Span(0, start, 0, (1,) * count) for start, count in zip(starts, num_responses, strict=False)
            ),
            media={},
            reads="ends",
        )

    @property
    def fill(self) -> float:
        """The share of the B * L places that hold a token."""
        return float((self.branch != IGNORED).float().mean())

    def runs(self) -> tuple[list[range], list[list[range]]]:
        """Return the flat positions in B * L of each tree's prefix, and of each of its branches.

        A tree of one response is a prefix alone: nothing branches off it.
        """
        width = self.input_ids.shape[1]
        prefixes: list[range] = []
        branches: list[list[range]] = []
        for span in self.spans:
            start = span.row * width + span.start
            stops = list(accumulate(span.responses, initial=start + span.prompt))
            is_alone = len(span.responses) == 1
            prefixes.append(range(start, stops[-1 if is_alone else 0]))
            branches.append([] if is_alone else [range(*pair) for pair in pairwise(stops)])
        return prefixes, branches

    def to(self, device: torch.device | str) -> Forest:
        """Return the forest on another device, with all that its attention reads there.

        Nothing waits for the device: the copies to a GPU are made from pinned memory.
        """
        device = torch.device(device)

        def move(tensor: Tensor) -> Tensor:
            return moved(tensor, device)

        names = ("input_ids", "tree", "branch", "response", "positions", "ends", "lengths")
        tensors: dict[str, Any] = {name: move(getattr(self, name)) for name in names}
        media = {
            name: value if name in self.read_on_cpu else move(value) for name, value in self.media.items()
        }
        packed = self.packed
        if packed is None and device.type != "cpu":
            packed = packed_runs(*self.runs(), self.input_ids.numel())
        packed = None if packed is None else packed.moved(move)
        return replace(self, **tensors, media=media, packed=packed)

    def visible(self) -> Tensor:
        """Return the dense attention mask [B, 1, L, L], True where visible: the reference for faster forms.

        A padding token sees itself, so that no row of a softmax is empty.
        """
        tree_i, tree_j = self.tree[:, :, None], self.tree[:, None, :]
        branch_i, branch_j = self.branch[:, :, None], self.branch[:, None, :]
        place = torch.arange(self.tree.shape[1], device=self.tree.device)
        causal = place[:, None] >= place
        same = (tree_i == tree_j) & (tree_j != IGNORED)
        seen = same & causal & ((branch_j == 0) | (branch_i == branch_j))
        padding = torch.diag_embed(self.tree == IGNORED)
        return (seen | padding)[:, None]


def pack(trees: Sequence[Tree], *, pad: int, shared: bool = True, row_tokens: float | None = None) -> Forest:
    """Pack trees into rows.

    Args:
        trees: The comparisons, in the order in which rewards come out.
        pad: The token id written into padding.
        shared: Whether a comparison's responses share one copy of the prompt. False gives one tree to a
            response: more work, the same rewards.
        row_tokens: Most tokens of a row that several trees share (first-fit bin packing): `math.inf` puts all
            trees into one row, None each into a row of its own.
    """
    if not trees:
        raise ValueError("a forest needs at least one tree")
    num_responses = tuple(tree.num_reads for tree in trees)
    if not shared:
        trees = [branch for tree in trees for branch in tree.branches()]
    first_response = list(accumulate((tree.num_reads for tree in trees), initial=0))
    rows = [[number] for number in range(len(trees))]
    if row_tokens == math.inf:
        rows = [list(range(len(trees)))]
    elif row_tokens is not None:
        rows = ops.first_fit([len(tree) for tree in trees], int(row_tokens))
    width = max(sum(len(trees[number]) for number in row) for row in rows)
    num_axes = trees[0].positions.shape[0]

    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    tree_of = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    branch = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    response_of = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    positions = torch.zeros((num_axes, len(rows), width), dtype=torch.long)
    ends = torch.empty(first_response[-1], dtype=torch.long)
    lengths = torch.empty(first_response[-1], dtype=torch.long)
    spans = []
    for row_number, row in enumerate(rows):
        column = 0
        for number in row:
            tree = trees[number]
            span = Span(
                row_number, column, len(tree.prompt), tuple(len(response) for response in tree.responses)
            )
            spans.append(span)
            tree_of[row_number, column : span.stop] = number
            place = slice(column, column + len(tree.prompt))
            ids[row_number, place] = torch.tensor(tree.prompt, dtype=torch.long)
            branch[row_number, place] = 0
            positions[:, row_number, place] = tree.positions
            column = place.stop
            flat = first_response[number]
            parts = zip(tree.responses, tree.all_leads, tree.all_reads, strict=True)
            for offset, (response, lead, reads) in enumerate(parts):
                place = slice(column, column + len(response))
                column = place.stop
                ids[row_number, place] = torch.tensor(response, dtype=torch.long)
                branch[row_number, place] = offset + 1
                positions[:, row_number, place] = tree.start + torch.arange(len(response))
                for first, read in pairwise([lead, *(read + 1 for read in reads)]):
                    response_of[row_number, place.start + first : place.start + read] = flat
                    ends[flat] = row_number * width + place.start + read - 1
                    lengths[flat] = read - first
                    flat += 1
    # Image features fill their tokens in the order of the rows, which is not always that of the trees.
    in_row_order = [trees[number] for row in rows for number in row]
    names = dict.fromkeys(name for tree in in_row_order for name in tree.media)
    media = {
        name: torch.cat([tree.media[name] for tree in in_row_order if name in tree.media]) for name in names
    }
    return Forest(
        ids, tree_of, branch, response_of, positions, ends, lengths, num_responses, tuple(spans), media
    )
