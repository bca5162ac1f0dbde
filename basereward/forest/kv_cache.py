"""The KV cache of a batch of trees: one copy of each prefix's keys and values, read by all its responses.

Shapes: T trees, N responses, P tokens of the longest prefix, S of the longest branch, n most responses of a
tree, w width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

GROWTH = 64
"""Free places for new tokens of each branch after the prefill; once used up, the capacity doubles."""


@dataclass
class Layer:
    """The cached keys and values of one attention layer."""

    prefixes: tuple[Tensor, Tensor]  # keys and values, each [T, key heads, P, w]
    branches: tuple[Tensor, Tensor]  # keys and values, each [N, key heads, S or more, w]
    num_branch_tokens: int  # S


@dataclass
class Grid:
    """The places of N responses in a table of T trees by n responses.

    Args:
        responses: [T * n] the response in each place; N where there is none.
        places: [N] the place of each response.
        num_trees: T.
        is_full: Whether every place has its response, in their order.
    """

    responses: Tensor
    places: Tensor
    num_trees: int
    is_full: bool

    @classmethod
    def of(cls, trees: Sequence[int], num_trees: int, device: torch.device) -> Grid:
        """Make the table of the tree of each response; those of a tree stand together."""
        counts = [0] * num_trees
        columns = []
        for tree in trees:
            columns.append(counts[tree])
            counts[tree] += 1
        width = max(counts)
        places = [tree * width + column for tree, column in zip(trees, columns, strict=True)]
        responses = [len(trees)] * (num_trees * width)
        for response, place in enumerate(places):
            responses[place] = response
        is_full = places == list(range(num_trees * width))
        return cls(
            torch.tensor(responses, device=device), torch.tensor(places, device=device), num_trees, is_full
        )

    def by_tree(self, states: Tensor) -> Tensor:  # [N, key heads, groups, x] -> [T, key heads, n * groups, x]
        """Return the responses' states side by side within their trees; zeros where there is no response."""
        if not self.is_full:
            padded = torch.cat([states, states.new_zeros(1, *states.shape[1:])])
            states = padded.index_select(0, self.responses)
        return torch.unflatten(states, 0, (self.num_trees, -1)).transpose(1, 2).flatten(2, 3)

    def by_response(self, states: Tensor, groups: int) -> Tensor:
        """Return what `by_tree` was given: [T, key heads, n * groups, x] -> [N, key heads, groups, x]."""
        rows = torch.unflatten(states, 2, (-1, groups)).transpose(1, 2).flatten(0, 1)
        return rows if self.is_full else rows.index_select(0, self.places)


class PrefixKVCache:
    """The keys and values of trees in every layer.

    The first forward pass of a forest with this cache is the prefill. In each later pass, a decoding step,
    every one of the N responses has one new token, which sees its prefix, its own branch, and itself.
    """

    def __init__(self) -> None:
        self._layers: dict[int, Layer] = {}
        self._trees: list[int] = []  # [N] the tree of each response
        self._is_branch_token: Tensor | None = None  # [N, S] False where prefilled branches are padding
        self._is_prefix_token: Tensor | None = None  # [T, P] likewise; None where no prefix is padded
        self._grid: Grid | None = None

    def is_prefilled(self, module: nn.Module) -> bool:
        """Tell whether an attention layer has been through the prefill."""
        return id(module) in self._layers

    def prefill(
        self,
        module: nn.Module,
        key: Tensor,  # [B * L, key heads, w]
        value: Tensor,  # [B * L, key heads, w]
        *,
        prefixes: Sequence[range],
        branches: Sequence[Sequence[range]],
    ) -> None:
        """Store the keys and values of trees.

        Args:
            module: The attention layer.
            key: Keys of all tokens of the forest.
            value: Values, likewise.
            prefixes: Flat positions in B * L of each tree's prefix.
            branches: Flat positions of each branch of each tree; empty for a tree of one response, which is
                prefix alone.
        """
        # A tree without branches has one response, of which no token is the branch's yet.
        runs = [run for of_tree in branches for run in of_tree or [range(0)]]
        longest_prefix, longest_branch = max(map(len, prefixes)), max(map(len, runs))
        cached = []
        for states in (key, value):
            stored = (
                _padded(states, prefixes, longest_prefix),
                _padded(states, runs, longest_branch + GROWTH),
            )
            cached.append(stored)
        (prefix_keys, branch_keys), (prefix_values, branch_values) = cached
        self._layers[id(module)] = Layer(
            (prefix_keys, prefix_values), (branch_keys, branch_values), longest_branch
        )
        if self._grid is None:
            self._trees = [
                number for number, of_tree in enumerate(branches) for _ in range(len(of_tree) or 1)
            ]
            self._grid = Grid.of(self._trees, len(prefixes), key.device)
            self._is_branch_token = _token_mask(runs, longest_branch, key.device)
            if any(len(run) < longest_prefix for run in prefixes):
                self._is_prefix_token = _token_mask(prefixes, longest_prefix, key.device)

    def decode(
        self,
        module: nn.Module,
        query: Tensor,  # [N, heads, w]
        key: Tensor,  # [N, key heads, w]
        value: Tensor,  # [N, key heads, w]
        *,
        scale: float,
    ) -> Tensor:  # [N, heads, w]
        """Append each response's new token to the cache, and attend with it."""
        layer = self._layers[id(module)]
        place = layer.num_branch_tokens
        if place == layer.branches[0].shape[2]:
            padding = (0, 0, 0, place + GROWTH)  # doubled, so that copying takes constant time a token
            keys, values = layer.branches
            layer.branches = (functional.pad(keys, padding), functional.pad(values, padding))
        layer.branches[0][:, :, place], layer.branches[1][:, :, place] = key, value
        layer.num_branch_tokens = place + 1
        keys, values = (states[:, :, : place + 1] for states in layer.branches)

        assert self._grid is not None
        assert self._is_branch_token is not None
        num_responses, num_heads, width = query.shape
        num_key_heads = key.shape[1]
        groups = num_heads // num_key_heads
        grouped = (query * scale).view(num_responses, num_key_heads, groups, width)
        scores = self._grid.by_tree(grouped) @ layer.prefixes[0].transpose(2, 3)  # [T, kh, n * groups, P]
        if self._is_prefix_token is not None:
            scores = scores.masked_fill(~self._is_prefix_token[:, None, None], float("-inf"))
        prefix_scores = self._grid.by_response(scores, groups)  # [N, key heads, groups, P]
        branch_scores = grouped @ keys.transpose(2, 3)  # [N, key heads, groups, S + 1]
        hidden = torch.zeros(num_responses, place + 1, dtype=torch.bool, device=query.device)
        hidden[:, : self._is_branch_token.shape[1]] = ~self._is_branch_token
        branch_scores = branch_scores.masked_fill(hidden[:, None, None], float("-inf"))
        weights = torch.cat([prefix_scores, branch_scores], dim=-1).float().softmax(-1).to(value.dtype)
        num_prefix_tokens = prefix_scores.shape[-1]
        prefix_weights, branch_weights = weights[..., :num_prefix_tokens], weights[..., num_prefix_tokens:]
        prefix_output = self._grid.by_tree(prefix_weights) @ layer.prefixes[1]
        output = self._grid.by_response(prefix_output, groups) + branch_weights @ values
        return output.reshape(num_responses, num_heads, width)

    def select(self, rows: Tensor) -> None:
        """Keep only some of the responses.

        Args:
            rows: [n] their numbers among the cached ones.
        """
        assert self._grid is not None
        assert self._is_branch_token is not None
        self._is_branch_token = self._is_branch_token[rows]
        self._trees = [self._trees[row] for row in rows.tolist()]
        for layer in self._layers.values():
            layer.branches = (layer.branches[0][rows], layer.branches[1][rows])
        live = sorted(set(self._trees))
        num_trees = self._grid.num_trees
        # Prefixes are long: copying them for each tree that ends would cost more than skipping over it.
        if 2 * len(live) <= num_trees:
            kept = torch.tensor(live, device=rows.device)
            for layer in self._layers.values():
                layer.prefixes = (layer.prefixes[0][kept], layer.prefixes[1][kept])
            if self._is_prefix_token is not None:
                self._is_prefix_token = self._is_prefix_token[kept]
            number_of = {tree: number for number, tree in enumerate(live)}
            self._trees = [number_of[tree] for tree in self._trees]
            num_trees = len(live)
        self._grid = Grid.of(self._trees, num_trees, rows.device)


def _padded(states: Tensor, runs: Sequence[range], length: int) -> Tensor:  # -> [runs, key heads, length, w]
    rows = states.new_zeros(len(runs), states.shape[1], length, states.shape[2])
    for number, run in enumerate(runs):
        rows[number, :, : len(run)] = states[run.start : run.stop].transpose(0, 1)
    return rows


def _token_mask(runs: Sequence[range], length: int, device: torch.device) -> Tensor:  # [runs, length]
    lengths = torch.tensor([len(run) for run in runs])
    return (torch.arange(length) < lengths[:, None]).to(device)
