"""Baselines: rewards without a model, by a response's length, by its place or at random."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

from basereward.comparison import Comparison
from basereward.errors import ConfigError
from basereward.protocols import Scorer

BASELINES = ("longest", "shortest", "first", "random")
"""Names that stand anywhere a model directory stands; "random:7" is `random` with another seed."""


class Baseline(Scorer["list[float]"]):
    """Gives each response a reward by a rule; opens no image.

    Args:
        rule: From a comparison and the number of a response, its reward.
    """

    def __init__(self, rule: Callable[[Comparison, int], float]) -> None:
        self.rule = rule

    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8
    ) -> Iterator[tuple[Comparison, list[float]]]:
        """Yield each comparison with its rewards, in order."""
        for comparison in comparisons:
            yield comparison, [self.rule(comparison, number) for number in range(len(comparison.responses))]


def is_baseline(name: str) -> bool:
    """Tell whether a name is a baseline's."""
    return name.partition(":")[0] in BASELINES


def baseline_of(name: str) -> Baseline:
    """Return the baseline of a name.

    - `longest`: a response's reward is its number of characters.
    - `shortest`: the same, negative.
    - `first`: 1 for the first response of a comparison, 0 for the others.
    - `random`: a number from 0 to 1 that follows from seed, prompt and response alone, so that it doesn't
      depend on the order of anything; `random:7` takes the seed 7.

    Raises:
        ConfigError: When there is no such baseline.
    """
    kind, colon, seed = name.partition(":")
    if kind == "random" and (seed.isdecimal() or not colon):
        return Baseline(lambda comparison, number: _random(int(seed or 0), comparison, number))
    if name == "longest":
        return Baseline(lambda comparison, number: float(len(comparison.responses[number])))
    if name == "shortest":
        return Baseline(lambda comparison, number: -float(len(comparison.responses[number])))
    if name == "first":
        return Baseline(lambda comparison, number: float(number == 0))
    raise ConfigError(f"no baseline {name!r}; baselines: {', '.join(BASELINES)}, and random:SEED")


def _random(seed: int, comparison: Comparison, number: int) -> float:
    texts = [str(seed), *(message.text for message in comparison.prompt), comparison.responses[number]]
    # Lengths keep apart what would be one text when joined.
    whole = "".join(f"{len(text)}:{text}" for text in texts).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(whole, digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
