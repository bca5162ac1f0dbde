"""Comparisons with a simple criterion that can be verified: which of two answers is in capital letters.

The two are drawn alike but for that, so that neither length nor wording gives the answer away.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from basereward.comparison import Comparison

NOUNS = (
    "river", "window", "horse", "garden", "letter", "bridge", "candle", "doctor", "engine", "forest",
    "hammer", "island", "kitchen", "lemon", "market", "needle", "orange", "pencil", "queen", "rabbit",
    "sailor", "table", "umbrella", "village", "wagon", "blanket", "castle", "dragon", "farmer", "guitar",
)  # fmt: skip
SEEN, UNSEEN = NOUNS[:20], NOUNS[20:]
ADJECTIVES = ("old", "red", "quiet", "small", "bright", "heavy", "green", "cold", "young", "strange")


def comparisons(num: int, seed: int, *, are_unseen: bool = False) -> list[Comparison]:
    """Return comparisons with the judgements of both orders; unseen ones have subjects of their own."""
    chance = random.Random(seed)
    nouns = UNSEEN if are_unseen else SEEN
    return [_comparison(chance, nouns, number) for number in range(num)]


def _comparison(chance: random.Random, nouns: Sequence[str], number: int) -> Comparison:
    better = chance.randrange(2)
    subject = chance.sample(nouns, 2)[0]
    shouted, plain = _sentence(chance, subject).upper(), _sentence(chance, subject)
    responses = [plain, shouted] if better else [shouted, plain]
    return Comparison(
        f"Describe the {subject} in capital letters.",
        responses,
        ranks=[float(place != better) for place in range(2)],
        id=f"{number}",
        meta={"judgements": judgements(better)},
    )


def judgements(better: int) -> list[dict[str, Any]]:
    """Return what a judge is to write where response `better` is the one in capital letters."""
    return [
        {"first": first, "second": second, "text": judgement(1 if first == better else 2)}
        for first, second in ((0, 1), (1, 0))
    ]


def judgement(verdict: int) -> str:
    """Return a judgement in its form."""
    return f"<think>Response {verdict} is better.</think><answer>{verdict}</answer>"


def _sentence(chance: random.Random, subject: str) -> str:
    first, second = chance.sample(ADJECTIVES, 2)
    return f"the {subject} is {first} and {second}"


def rows(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return the comparisons as rows of a file."""
    return [comparison.to_dict() for comparison in found]
