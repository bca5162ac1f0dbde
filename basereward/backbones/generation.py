"""Decoding: continue the responses of a tree token by token, with its prompt encoded once for all of them.

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
class Generation:
    """The continuation of one response.

    Args:
        ids: Its tokens, without the stop tokens.
        is_finished: Whether the model ended it; else it is cut at `max_tokens`.
    """

    ids: list[int]
    is_finished: bool


@dataclass(frozen=True)
class Sampling:
    """Sampling with a temperature; each text's random numbers depend on the seed and its own beginning alone.

    Args:
        temperature: Divides the logits; > 0.
        seed: The seed of the random numbers.
    """

    temperature: float = 1.0
    seed: int = 0


@torch.no_grad()
def generate(
    backbone: Backbone,
    head: nn.Module,
    tree: Tree,
    *,
    max_tokens: int,
    stop_ids: Sequence[int],
    sampling: Sampling | None = None,
) -> list[Generation]:
    """Continue each response of a tree, whose prompt is encoded once.

    Of the control tokens only the stop tokens are generated: an image token, say, would be taken for an image
    where the text is read again.

    Args:
        backbone: The model, in evaluation.
        head: The language-model head, hidden states [..., D] to logits [..., V].
        tree: The prompt, and the beginning of each text, one token or more.
        max_tokens: The longest text, without its stop tokens.
        stop_ids: The sequence of tokens that ends a text, such as the end of a turn.
        sampling: None decodes greedily.
    """
    # Texts that end leave the tree, and nothing here depends on which of their tokens are the prompt's.
    tree = replace(tree, leads=())
    state: _Cached | _Recomputed
    state = _Cached(backbone, tree) if backbone.supports_kv_cache else _Recomputed(backbone, tree)
    generators = [_generator(sampling, tree, number) for number in range(len(tree.responses))]
    texts: list[list[int]] = [[] for _ in tree.responses]
    finished = [False] * len(texts)
    device = next(backbone.parameters()).device
    banned = torch.tensor(
        sorted(set(backbone.control_ids()) - set(stop_ids)), dtype=torch.long, device=device
    )
    active = list(range(len(texts)))
    while active:
        logits = head(state.ends).index_fill(1, banned, float("-inf"))  # [n, V]
        tokens = _next(logits, sampling, [generators[number] for number in active])
        for number, token in zip(active, tokens, strict=True):
            texts[number].append(token)
            finished[number] = texts[number][-len(stop_ids) :] == list(stop_ids)
        going = [
            place
            for place, number in enumerate(active)
            # A text of `max_tokens` tokens may still be ended.
            if not finished[number] and len(texts[number]) < max_tokens + len(stop_ids)
        ]
        if going:
            state.step([tokens[place] for place in going], going)
        active = [active[place] for place in going]
    return [
        Generation(ids[: -len(stop_ids)] if is_finished else ids[:max_tokens], is_finished)
        for ids, is_finished in zip(texts, finished, strict=True)
    ]


class _Cached:
    """Hidden states at the texts' ends, computed with a KV cache of all tokens before them."""

    def __init__(self, backbone: Backbone, tree: Tree) -> None:
        self._backbone = backbone
        self._kv_cache = PrefixKVCache()
        device = next(backbone.parameters()).device
        forest = replace(backbone.pack([tree]), reads="ends", kv_cache=self._kv_cache).to(device)
        self._num_axes = len(tree.positions)
        self._positions = torch.tensor([tree.start + len(response) for response in tree.responses])
        self.ends: Tensor = backbone(forest).flatten(0, 1).index_select(0, forest.ends)  # [n, D]

    def step(self, tokens: list[int], going: list[int]) -> None:
        """Append a token to each text that goes on.

        Args:
            tokens: The tokens.
            going: The texts' numbers among those of the step before.
        """
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


class _Recomputed:
    """Hidden states at the texts' ends, recomputed for each token: for backbones without a KV cache."""

    def __init__(self, backbone: Backbone, tree: Tree) -> None:
        self._backbone = backbone
        self._tree = tree
        self._run()

    def step(self, tokens: list[int], going: list[int]) -> None:
        """Append a token to each text that goes on.

        Args:
            tokens: The tokens.
            going: The texts' numbers among those of the step before.
        """
        before = [self._tree.responses[place] for place in going]
        longer = [[*ids, token] for ids, token in zip(before, tokens, strict=True)]
        self._tree = replace(self._tree, responses=longer)
        self._run()

    def _run(self) -> None:
        forest = replace(self._backbone.pack([self._tree]), reads="ends")
        forest = forest.to(next(self._backbone.parameters()).device)
        self.ends = self._backbone(forest).flatten(0, 1).index_select(0, forest.ends)  # [n, D]


def _next(logits: Tensor, sampling: Sampling | None, generators: Sequence[Any]) -> list[int]:
    if sampling is None:
        return logits.argmax(-1).tolist()
    probabilities = (logits.double() / sampling.temperature).softmax(-1).cpu()  # [n, V]
    # One generator a text, so that a text doesn't depend on those generated beside it.
    points = [torch.rand((), dtype=torch.float64, generator=generator) for generator in generators]
    tokens = torch.searchsorted(probabilities.cumsum(-1), torch.stack(points)[:, None])[:, 0]
    return tokens.clamp(max=logits.shape[-1] - 1).tolist()


def _generator(sampling: Sampling | None, tree: Tree, number: int) -> torch.Generator | None:
    """Return the random generator of one text, seeded by its beginning and the repeats of that before it."""
    if sampling is None:
        return None
    beginning = tree.responses[number]
    repeat = tree.responses[:number].count(beginning)
    seed = f"{sampling.seed} {repeat} {tree.prompt} {beginning}".encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(seed).digest()[:7]))
