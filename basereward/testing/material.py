"""Inputs for the checks: comparisons with and without images, forests, hidden states, targets."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import PIL.Image
import torch
from torch import Tensor
from torch.nn import functional

from basereward.comparison import Comparison
from basereward.forest.forest import Forest, Tree, pack

WORDS = ("a", "red", "blue", "cat", "dog", "bird", "sits", "runs", "on", "under", "the", "mat", "hat", "is")
VOCABULARY = 50


def image(width: int, height: int, seed: int) -> PIL.Image.Image:
    """Return an image of coloured noise."""
    chance = random.Random(seed)
    return PIL.Image.frombytes("RGB", (width, height), chance.randbytes(width * height * 3))


def sentence(seed: int, num_words: int) -> str:
    """Return words in a random order."""
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) for _ in range(num_words))


@cache
def comparisons(num_images: tuple[int, ...] = (0, 0, 0)) -> tuple[Comparison, ...]:
    """Return comparisons of 2, 3, 2, ... responses, short and long, with so many images each."""
    rows = []
    for number, num in enumerate(num_images):
        num_responses = 2 + number % 2
        rows.append(
            Comparison(
                sentence(number, 3 + 4 * number),
                [sentence(10 * number + at, 1 + 3 * at + number) for at in range(num_responses)],
                images=[image(56 + 28 * at, 56, 7 * number + at) for at in range(num)],
                ratings=[float(num_responses - at) for at in range(num_responses)],
                id=f"row-{number}",
            )
        )
    return tuple(rows)


def rated(ratings: Sequence[float], *, weight: float = 1.0, seed: int = 0) -> Comparison:
    """Return a comparison whose responses have these ratings."""
    responses = [f"{number} {sentence(seed + number, 2 + number)}" for number in range(len(ratings))]
    return Comparison(sentence(seed, 4), responses, ratings=ratings, weight=weight)


def trees() -> list[Tree]:
    """Return trees in tokens: of two, three and one responses."""
    generator = torch.Generator().manual_seed(0)

    def tokens(num: int) -> list[int]:
        return torch.randint(1, VOCABULARY, (num,), generator=generator).tolist()

    return [
        Tree.of_text(tokens(prompt), [tokens(response) for response in responses])
        for prompt, responses in ((3, (2, 4)), (5, (1, 3, 2)), (2, (6,)))
    ]


def forest_of(of: Sequence[Tree], *, shared: bool = True) -> Forest:
    """Return trees as a forest, a row for each."""
    return pack(of, pad=0, shared=shared)


def hidden_of(forest: Forest, dim: int) -> Tensor:  # [B, L, D]
    """Return states that depend on a token and its position alone, so the same in every layout."""
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(2, VOCABULARY, dim, generator=generator)
    return table[0][forest.input_ids] + table[1][forest.positions[0]]


def widened(forest: Forest, num_columns: int) -> Forest:
    """Return a forest with more padding on the right of each row."""
    length = forest.input_ids.shape[1]
    padded: dict[str, Any] = {
        name: functional.pad(getattr(forest, name), (0, num_columns), value=value)
        for name, value in (
            ("input_ids", 0),
            ("tree", -1),
            ("branch", -1),
            ("response", -1),
            ("positions", 0),
        )
    }
    padded["input_ids"][forest_padding(padded["branch"])] = int(forest.input_ids.flatten()[0])
    ends = forest.ends // length * (length + num_columns) + forest.ends % length
    return replace(forest, ends=ends, **padded)


def forest_padding(branch: Tensor) -> Tensor:  # [B, L] bool
    """Return a mask of the padding."""
    return branch < 0


def at_ends(hidden: Tensor, forest: Forest) -> Tensor:  # [B, L, D] -> [N, D]
    """Return the states of the responses' last tokens."""
    return hidden.flatten(0, 1)[forest.ends]
