"""Writing on from the ends of a forest's responses, with the prompt encoded once for all of them.

Shapes: N texts, D width, A position axes, V tokens of the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from basereward.forest.forest import Forest, Tree
from basereward.forest.kv_cache import PrefixKVCache
from basereward.protocols import Backbone


@dataclass(frozen=True)
class Written:
    """One text that was written.

    Args:
        ids: Its tokens, without those that end it.
        is_finished: Whether the model ended it; else it is cut at the longest that was allowed.
    """

    ids: list[int]
    is_finished: bool


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; each text's draws depend on the seed and its own beginning alone.

    Args:
        temperature: What logits are divided by, > 0.
        seed: Names the draws.
    """

    temperature: float = 1.0
    seed: int = 0


@torch.no_grad()
def write(
    backbone: Backbone,
    head: nn.Module,
    tree: Tree,
    *,
    max_tokens: int,
    end: Sequence[int],
    sampling: Sampling | None = None,
) -> list[Written]:
    """Write on from each response of a tree, whose prompt is read once.

    Of the control tokens only those that end a text are written: one that stands for an image, say, would be
    taken for an image where the text is read again.

    Args:
        backbone: Reads; in evaluation.
        head: Makes logits [..., V] of hidden states [..., D].
        tree: The prompt, and what each text begins with; one token or more.
        max_tokens: The longest text, without its end.
        end: The tokens that end a text, such as the end of a turn.
        sampling: How tokens are drawn; None always takes the likeliest.
    """
    state: _Remembered | _ReadAgain
    state = _Remembered(backbone, tree) if backbone.supports_kv_cache else _ReadAgain(backbone, tree)
    draws = [_generator(sampling, tree, number) for number in range(len(tree.responses))]
    texts: list[list[int]] = [[] for _ in tree.responses]
    finished = [False] * len(texts)
    device = next(backbone.parameters()).device
    banned = torch.tensor(sorted(set(backbone.control_ids()) - set(end)), dtype=torch.long, device=device)
    active = list(range(len(texts)))
    while active:
        logits = head(state.ends).index_fill(1, banned, float("-inf"))  # [n, V]
        tokens = _next(logits, sampling, [draws[number] for number in active])
        for number, token in zip(active, tokens, strict=True):
            texts[number].append(token)
            finished[number] = texts[number][-len(end) :] == list(end)
        going = [
            place
            for place, number in enumerate(active)
            # A text of the longest length may still be ended.
            if not finished[number] and len(texts[number]) < max_tokens + len(end)
        ]
        if going:
            state.step([tokens[place] for place in going], going)
        active = [active[place] for place in going]
    return [
        Written(ids[: -len(end)] if is_finished else ids[:max_tokens], is_finished)
        for ids, is_finished in zip(texts, finished, strict=True)
    ]


class _Remembered:
    """Hidden states at the texts' ends, with keys and values of all before them in memory."""

    def __init__(self, backbone: Backbone, tree: Tree) -> None:
        self._backbone = backbone
        self._kv_cache = PrefixKVCache()
        device = next(backbone.parameters()).device
        forest = replace(backbone.pack([tree]), reads="ends", kv_cache=self._kv_cache).to(device)
        self._num_axes = len(tree.positions)
        self._positions = torch.tensor([tree.start + len(response) for response in tree.responses])
        self.ends: Tensor = backbone(forest).flatten(0, 1).index_select(0, forest.ends)  # [n, D]

    def step(self, tokens: list[int], going: list[int]) -> None:
        """Read the next token of the texts that go on, which are those of these numbers."""
        if len(going) < len(self._positions):
            self._kv_cache.select(torch.tensor(going, device=self.ends.device))
            self._positions = self._positions[going]
        ones = torch.ones(len(tokens), dtype=torch.long)
        forest = replace(
            Forest.of_ends(ones, [len(tokens)]),
            input_ids=torch.tensor([tokens]),
            positions=self._positions.expand(self._num_axes, 1, -1),
            reads="all",
            kv_cache=self._kv_cache,
        ).to(self.ends.device)
        self._positions = self._positions + 1
        self.ends = self._backbone(forest)[0]


class _ReadAgain:
    """Hidden states at the texts' ends, all read again for each token: for backbones that can't remember."""

    def __init__(self, backbone: Backbone, tree: Tree) -> None:
        self._backbone = backbone
        self._tree = tree
        self._read()

    def step(self, tokens: list[int], going: list[int]) -> None:
        """Read the next token of the texts that go on, which are those of these numbers."""
        before = [self._tree.responses[place] for place in going]
        longer = [[*ids, token] for ids, token in zip(before, tokens, strict=True)]
        self._tree = replace(self._tree, responses=longer)
        self._read()

    def _read(self) -> None:
        forest = replace(self._backbone.pack([self._tree]), reads="ends")
        forest = forest.to(next(self._backbone.parameters()).device)
        self.ends = self._backbone(forest).flatten(0, 1).index_select(0, forest.ends)  # [n, D]


def _next(logits: Tensor, sampling: Sampling | None, draws: Sequence[Any]) -> list[int]:
    if sampling is None:
        return logits.argmax(-1).tolist()
    shares = (logits.double() / sampling.temperature).softmax(-1).cpu()  # [n, V]
    points = [torch.rand((), dtype=torch.float64, generator=draw) for draw in draws]
    # Each by its own draw, so that a text doesn't depend on what is written beside it.
    found = torch.searchsorted(shares.cumsum(-1), torch.stack(points)[:, None])[:, 0]
    return found.clamp(max=logits.shape[-1] - 1).tolist()


def _generator(sampling: Sampling | None, tree: Tree, number: int) -> torch.Generator | None:
    """Return a source of draws of a text's own; the same beginning again draws anew."""
    if sampling is None:
        return None
    begins = tree.responses[number]
    repeat = tree.responses[:number].count(begins)
    decides = f"{sampling.seed} {repeat} {tree.prompt} {begins}".encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(decides).digest()[:7]))
