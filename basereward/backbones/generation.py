"""Decoding: continue the responses of trees token by token, with each prompt encoded once for all of them.

Shapes: N texts, D width, A position axes, V tokens of the vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

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
    trees: Sequence[Tree],
    *,
    max_tokens: int,
    stop_ids: Sequence[int],
    sampling: Sampling | Sequence[Sampling | None] | None = None,
) -> list[list[Generation]]:
    """Continue each response of each tree; all are decoded together, and each prompt is encoded once.

    Of the control tokens only the stop tokens are generated: an image token, say, would be taken for an image
    where the text is read again. What a text is beside changes its logits by rounding alone.

    Args:
        backbone: The model, in evaluation.
        head: The language-model head, hidden states [..., D] to logits [..., V].
        trees: Prompts, and the beginning of each text, one token or more.
        max_tokens: The longest text, without its stop tokens.
        stop_ids: The sequence of tokens that ends a text, such as the end of a turn.
        sampling: None decodes greedily; a list has an entry for each text, tree by tree.
    """
    if not trees:
        return []
    # Texts that end leave their tree, and nothing here depends on which of their tokens are the prompt's.
    trees = [replace(tree, leads=()) for tree in trees]
    state: _Cached | _Recomputed
    state = _Cached(backbone, trees) if backbone.supports_kv_cache else _Recomputed(backbone, trees)
    places = [(tree, number) for tree in trees for number in range(len(tree.responses))]
    samplings = list(sampling) if isinstance(sampling, Sequence) else [sampling] * len(places)
    draws = [_Draws(each, *place) for each, place in zip(samplings, places, strict=True)]
    texts: list[list[int]] = [[] for _ in places]
    finished = [False] * len(texts)
    device = next(backbone.parameters()).device
    banned = torch.tensor(
        sorted(set(backbone.control_ids()) - set(stop_ids)), dtype=torch.long, device=device
    )
    active = list(range(len(texts)))
    while active:
        logits = head(state.ends).index_fill(1, banned, float("-inf"))  # [n, V]
        tokens = _next(logits, [draws[number] for number in active])
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
    written = iter(
        Generation(ids[: -len(stop_ids)] if is_finished else ids[:max_tokens], is_finished)
        for ids, is_finished in zip(texts, finished, strict=True)
    )
    return [list(islice(written, len(tree.responses))) for tree in trees]


class _Cached:
    """Hidden states at the texts' ends, computed with a KV cache of all tokens before them."""

    def __init__(self, backbone: Backbone, trees: Sequence[Tree]) -> None:
        self._backbone = backbone
        self._kv_cache = PrefixKVCache()
        device = next(backbone.parameters()).device
        forest = _packed(backbone, trees)
        forest = replace(forest, reads="ends", kv_cache=self._kv_cache).to(device)
        self._num_axes = len(trees[0].positions)
        self._positions = torch.tensor(
            [tree.start + len(response) for tree in trees for response in tree.responses]
        )
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

    def __init__(self, backbone: Backbone, trees: Sequence[Tree]) -> None:
        self._backbone = backbone
        self._trees = list(trees)
        self._run()

    def step(self, tokens: list[int], going: list[int]) -> None:
        """Append a token to each text that goes on.

        Args:
            tokens: The tokens.
            going: The texts' numbers among those of the step before.
        """
        token_of = dict(zip(going, tokens, strict=True))
        numbers: Iterator[int] = iter(range(sum(len(tree.responses) for tree in self._trees)))
        longer = []
        for tree in self._trees:
            places = list(islice(numbers, len(tree.responses)))
            responses = [
                [*response, token_of[place]]
                for place, response in zip(places, tree.responses, strict=True)
                if place in token_of
            ]
            if responses:
                longer.append(replace(tree, responses=responses))
        self._trees = longer
        self._run()

    def _run(self) -> None:
        forest = replace(_packed(self._backbone, self._trees), reads="ends")
        forest = forest.to(next(self._backbone.parameters()).device)
        self.ends = self._backbone(forest).flatten(0, 1).index_select(0, forest.ends)  # [n, D]


def _packed(backbone: Backbone, trees: Sequence[Tree]) -> Forest:
    return backbone.pack(trees, row_tokens=math.inf if backbone.packs else None)


class _Draws:
    """The random numbers of one text, seeded by its beginning and the repeats of that before it.

    Args:
        sampling: None for a text that is decoded greedily.
        tree: The tree of the text.
        number: Its number there.
    """

    def __init__(self, sampling: Sampling | None, tree: Tree, number: int) -> None:
        self.temperature = None if sampling is None else sampling.temperature
        self._generator = torch.Generator()
        if sampling is not None:
            beginning = tree.responses[number]
            repeat = tree.responses[:number].count(beginning)
            seed = f"{sampling.seed} {repeat} {tree.prompt} {beginning}".encode()
            self._generator.manual_seed(int.from_bytes(hashlib.sha256(seed).digest()[:7]))

    def point(self) -> Tensor:
        """Return the next number, from 0 to 1."""
        return torch.rand((), dtype=torch.float64, generator=self._generator)


def _next(logits: Tensor, draws: Sequence[_Draws]) -> list[int]:
    tokens: list[int] = logits.argmax(-1).tolist()
    sampled = [row for row, each in enumerate(draws) if each.temperature is not None]
    if sampled:
        temperatures = torch.tensor([draws[row].temperature for row in sampled], dtype=torch.float64)
        scaled = logits[sampled].double().cpu() / temperatures[:, None]
        # One generator a text, so that a text doesn't depend on those generated beside it.
        points = torch.stack([draws[row].point() for row in sampled])
        chosen = torch.searchsorted(scaled.softmax(-1).cumsum(-1), points[:, None])[:, 0]
        for row, token in zip(sampled, chosen.clamp(max=logits.shape[-1] - 1).tolist(), strict=True):
            tokens[row] = token
    return tokens
