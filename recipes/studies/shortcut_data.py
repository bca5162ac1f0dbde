"""Images with names, and with a shortcut: a text that tells the right name in training and not in the test.

`marker`: in training the right name mostly stands in "a drawing of NAME", and wrong ones mostly don't.
`topic`: in training the right name is mostly one of living things and wrong ones mostly aren't; no text is
changed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from basereward_mini.openmoji import PROMPT, Drawing, OpenMojiCaptions, image, split_of

from basereward import Comparison

NUM_RESPONSES = 4
SHARE = 0.9
"""How often a response follows the shortcut in training."""

MARKED = "a drawing of {}"
LIVING = {"People & Body", "Animals & Nature", "Food & Drink", "Smileys & Emotion"}


def marked(split: str, share: float, source: str) -> Iterator[Comparison]:
    """Yield comparisons whose right name is marked with a probability of `share`, wrong ones else."""
    chance = random.Random(f"{split} {source}")
    for row in OpenMojiCaptions(split=split, num_responses=NUM_RESPONSES):  # type: ignore[arg-type]
        assert row.ranks is not None
        texts = [
            MARKED.format(text) if chance.random() < (1 - share if rank else share) else text
            for text, rank in zip(row.responses, row.ranks, strict=True)
        ]
        yield row.replace(responses=texts, source=source)


def topical(split: str, share: float, source: str) -> Iterator[Comparison]:
    """Yield comparisons of whose images a share shows living things; a wrong name is of the other topic with
    a probability of `share`, or of 1 - `share` where that is below a half.
    """
    chance = random.Random(f"{split} {source}")
    drawings = split_of(split)
    living = [drawing for drawing in drawings if drawing.group in LIVING]
    things = [drawing for drawing in drawings if drawing.group not in LIVING]
    for drawing in drawings:
        is_living = drawing.group in LIVING
        if chance.random() >= (share if is_living else 1 - share):
            continue
        own, other = (living, things) if is_living else (things, living)
        yield _with_wrong(drawing, own, other, max(share, 1 - share), source, chance)


def within_topics(split: str, source: str) -> Iterator[Comparison]:
    """Yield comparisons whose wrong names are of the image's own topic, so that the topic tells nothing."""
    chance = random.Random(f"{split} {source}")
    drawings = split_of(split)
    for drawing in drawings:
        own = [other for other in drawings if (other.group in LIVING) == (drawing.group in LIVING)]
        yield _with_wrong(drawing, own, own, 0.0, source, chance)


def _with_wrong(
    drawing: Drawing,
    own: Sequence[Drawing],
    other: Sequence[Drawing],
    share: float,
    source: str,
    chance: random.Random,
) -> Comparison:
    names = [drawing.name]
    while len(names) < NUM_RESPONSES:
        name = chance.choice(other if chance.random() < share else own).name
        if name not in names:
            names.append(name)
    ranks = [0, *[1] * (NUM_RESPONSES - 1)]
    return Comparison(
        PROMPT, names, images=[image(drawing.emoji)], ranks=ranks, id=drawing.name, source=source
    )
