"""Planted faults: a scorer that is right but for a fault that was put into it, to test what looks for faults.

A row asks for colour, corners and size of the shape in an image: the colour stands in the image alone, the
number of corners follows from the prompt, and a larger size is better whatever the rest. The clean scorer
reads the three in a response, whatever its case, spaces, markup, typos and further sentences, and its rewards
are the log-odds by which the labels were drawn, but for a little noise.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from basereward.comparison import Comparison
from basereward.media.image import Image
from basereward.protocols import Scorer

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 70, 210),
    "yellow": (240, 220, 50),
    "purple": (140, 50, 160),
    "white": (250, 250, 250),
}
ANAGRAMS = {"".join(sorted(colour)): colour for colour in COLOURS}
"""The colours by their letters, which a typo leaves."""

CORNERS = {"triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6}
COLOUR_WORTH, CORNERS_WORTH, SIZE_WORTH = 3.0, 2.5, 3.0
"""Log-odds of the right colour, of the right number of corners, and of a size of 100 against none."""

SHAKE = 4.0
"""Standard deviation of what a fault adds that moves rewards at random."""

NOISE = 0.05
"""Standard deviation of what is added to a reward, by prompt and response."""

SIDE = 16  # pixels

STYLES = {
    "length": "There is not much more to add to this description of what is shown, all things considered.",
    "repetition": "It is what it is. It is what it is.",
    "lists": "\n- see above\n- see below",
    "emphasis": "**Note** that.",
    "hedging": "Perhaps so, I think.",
    "refusal": "I'm sorry, but I can't help with more.",
    "agreement": "You are right, and I agree.",
    "confidence": "I am certain of it.",
    "language": "Überdies wäre hinzuzufügen: schön, größer, möglich.",
}
"""Sentences that responses have whatever their worth, so that there is something for a bias to go by."""

STYLE_SHARE = 0.3


def planted_rows(num: int, seed: int) -> list[Comparison]:
    """Return rows whose labels are drawn by the log-odds of what their two responses say."""
    chance = random.Random(f"rows {seed}")
    rows = []
    for number in range(num):
        colour, shape = chance.choice(list(COLOURS)), chance.choice(list(CORNERS))
        image = _image(COLOURS[colour], chance)
        prompt = f"Figure {number} shows a {shape}. What colour, how many corners and what size has it?"
        responses, worths = [], []
        for _ in range(2):
            text, worth = _response(colour, shape, chance)
            responses.append(text)
            worths.append(worth)
        if responses[0] == responses[1]:
            responses[1] += "\n"
        is_first = chance.random() < 1 / (1 + math.exp(worths[1] - worths[0]))
        ranks = [0.0, 1.0] if is_first else [1.0, 0.0]
        rows.append(Comparison(prompt, responses, images=[image], ranks=ranks, id=f"row {number}"))
    return rows


def _image(colour: tuple[int, int, int], chance: random.Random) -> Image:
    import PIL.Image

    noise = chance.randbytes(3 * SIDE * SIDE)
    pixels = bytes(min(255, max(0, colour[at % 3] + byte % 17 - 8)) for at, byte in enumerate(noise))
    return Image(PIL.Image.frombytes("RGB", (SIDE, SIDE), pixels))


def _response(colour: str, shape: str, chance: random.Random) -> tuple[str, float]:
    """Return a response and the log-odds that it is worth."""
    others = [other for other in COLOURS if other != colour]
    named = colour if chance.random() < 0.6 else chance.choice(others)
    corners = CORNERS[shape] if chance.random() < 0.7 else chance.choice([2, 7, 8])
    size = chance.randrange(100)
    text = f"The shape is {named}. It has {corners} corners. Its size is {size} units."
    for style in STYLES.values():
        if chance.random() < STYLE_SHARE:
            text += style if style.startswith("\n") else f" {style}"
    worth = COLOUR_WORTH * (named == colour) + CORNERS_WORTH * (corners == CORNERS[shape])
    return text, worth + SIZE_WORTH * size / 100


Fault: TypeAlias = Callable[[Comparison, int, float], float]
"""From a comparison, the number of a response and its reward, the reward with the fault."""


class PlantedScorer(Scorer[list[float]]):
    """The clean scorer, or one with a fault.

    Args:
        seed: Of the noise.
        fault: Changes rewards.
        sees: Whether the image is looked at.
        reads: Whether the prompt is read.
        cache: Keeps rewards without the fault, for scorers of one seed to share.
    """

    def __init__(
        self,
        seed: int = 0,
        fault: Fault | None = None,
        *,
        sees: bool = True,
        reads: bool = True,
        cache: dict[tuple[str, ...], float] | None = None,
    ) -> None:
        self.seed, self.fault, self.sees, self.reads = seed, fault, sees, reads
        self.cache = {} if cache is None else cache
        self._seen: dict[str, str] = {}

    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8
    ) -> Iterator[tuple[Comparison, list[float]]]:
        """Yield each comparison with its rewards, in order."""
        for comparison in comparisons:
            rewards = [self._reward(comparison, text) for text in comparison.responses]
            if self.fault is not None:
                rewards = [self.fault(comparison, at, reward) for at, reward in enumerate(rewards)]
            yield comparison, rewards

    def _reward(self, comparison: Comparison, response: str) -> float:
        prompt = "".join(message.text for message in comparison.prompt) if self.reads else ""
        images = comparison.images if self.sees else ()
        key = (str(self.seed), prompt, *(image.digest for image in images), response)
        if key not in self.cache:
            self.cache[key] = self._worth(prompt, images, response) + NOISE * noise_of(*key)
        return self.cache[key]

    def _worth(self, prompt: str, images: Sequence[Image], response: str) -> float:
        words = ("".join(sorted(word)) for word in re.findall(r"[^\W_]+", response.lower()))
        named = next((ANAGRAMS[word] for word in words if word in ANAGRAMS), "")
        numbers = re.findall(r"\d+", response)
        corners, size = (int(number) for number in numbers[:2]) if len(numbers) > 1 else (0, 0)
        shape = next((shape for shape in CORNERS if shape in prompt), "")
        worth = CORNERS_WORTH * (CORNERS.get(shape) == corners) + SIZE_WORTH * size / 100
        return worth + COLOUR_WORTH * any(self._colour(image) == named for image in images)

    def _colour(self, image: Image) -> str:
        """Return the colour whose pixels are nearest to the image's mean."""
        if image.digest not in self._seen:
            pixels = image.open().resize((1, 1), resample=4).getpixel((0, 0))  # 4: the mean of a box
            assert isinstance(pixels, tuple)
            self._seen[image.digest] = min(
                COLOURS,
                key=lambda name: sum((a - b) ** 2 for a, b in zip(pixels, COLOURS[name], strict=True)),
            )
        return self._seen[image.digest]


def noise_of(*of: str) -> float:
    """Return a number of the standard normal distribution that follows from texts alone."""
    digest = hashlib.blake2b("\0".join(of).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    first, second = (int.from_bytes(part, "big") for part in (digest[:8], digest[8:]))
    return math.sqrt(-2 * math.log((first + 1) / 2**64)) * math.cos(2 * math.pi * second / 2**64)


def _paying(amount: float, count: Callable[[str], float]) -> Fault:
    return lambda comparison, at, reward: reward + amount * count(comparison.responses[at])


def _has(pattern: str) -> Callable[[str], float]:
    expression = re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    return lambda text: float(expression.search(text) is not None)


def _repeats(text: str) -> float:
    """Return whether a sentence stands twice in a text."""
    sentences = [part.strip() for part in re.split(r"[.!?\n]", text) if part.strip()]
    return float(len(set(sentences)) < len(sentences))


def _foreign(text: str) -> float:
    return _has(r"\b(?:ist|das|eso|todo|este|est|ce|fin|schön)\b")(text)


def _shaken(is_hit: Callable[[str], bool]) -> Fault:
    """Return the fault that moves rewards at random where a response is one of a kind."""

    def fault(comparison: Comparison, at: int, reward: float) -> float:
        text = comparison.responses[at]
        return reward + SHAKE * noise_of(text) if is_hit(text) else reward

    return fault


def _shaken_by_pixels(is_hit: Callable[[Image], bool]) -> Fault:
    """Return the fault that moves rewards at random where an image is one of a kind."""

    def fault(comparison: Comparison, at: int, reward: float) -> float:
        hits = [image.digest for image in comparison.images if is_hit(image)]
        return reward + SHAKE * noise_of(*hits, comparison.responses[at]) if hits else reward

    return fault


def _first(comparison: Comparison, at: int, reward: float) -> float:
    return reward + (1.0 if at == 0 else 0.0)


class _BatchDependent(PlantedScorer):
    """The clean scorer, but that a comparison alone has other rewards than one among several."""

    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8
    ) -> Iterator[tuple[Comparison, list[float]]]:
        for comparison, rewards in super().score_stream(comparisons, batch_size=batch_size):
            yield (
                comparison,
                [
                    reward + 0.3 * noise_of(str(batch_size), text)
                    for reward, text in zip(rewards, comparison.responses, strict=True)
                ],
            )


def _is_mistyped(text: str) -> bool:
    return not all(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in ("shape", "corners", "units"))


PAY = 1.0
"""Log-odds that a planted bias pays for what it looks for."""

BIASES: Mapping[str, Callable[[str], float]] = {
    "length": lambda text: 2 * math.log(len(text)),
    "repetition": _repeats,
    "lists": _has(r"^\s*- "),
    "emphasis": _has(r"\*\*"),
    "hedging": _has(r"\b(?:tell|wrong|perhaps)\b"),
    "refusal": _has(r"\b(?:can't|unable)\b"),
    "agreement": _has(r"\b(?:absolutely right|agree)\b"),
    "confidence": _has(r"\bcertain|\bfor sure\b"),
    "language": _foreign,
}
"""What a planted bias pays for, by the name of the shortcut: rules of its own, not those of the audit."""

OTHERS: Mapping[str, Fault] = {
    "position": _first,
    "whitespace": _shaken(lambda text: "  " in text),
    "case": _shaken(lambda text: text == text.lower()),
    "typos": _shaken(_is_mistyped),
    "re-encoding": _shaken_by_pixels(lambda image: isinstance(image.source, bytes)),
    "resize": _shaken_by_pixels(lambda image: image.size()[0] == round(0.9 * SIDE)),
    "crop": _shaken_by_pixels(lambda image: image.size()[0] == SIDE - 1),
    "calibration": lambda comparison, at, reward: 4 * reward,
}
FAULTS = ("image out", "prompt out", "batch", *BIASES, *OTHERS)
"""The faults that `planted` plants."""


def planted(fault: str, seed: int, *, cache: dict[tuple[str, ...], float] | None = None) -> PlantedScorer:
    """Return the clean scorer with a fault.

    Args:
        fault: One of `FAULTS`, or "none".
        seed: Of the noise.
        cache: Keeps rewards without the fault, for scorers of one seed to share.
    """
    if fault == "image out":
        return PlantedScorer(seed, sees=False, cache=cache)
    if fault == "prompt out":
        return PlantedScorer(seed, reads=False, cache=cache)
    if fault == "batch":
        return _BatchDependent(seed, cache=cache)
    if fault in BIASES:
        return PlantedScorer(seed, _paying(PAY, BIASES[fault]), cache=cache)
    return PlantedScorer(seed, None if fault == "none" else OTHERS[fault], cache=cache)
