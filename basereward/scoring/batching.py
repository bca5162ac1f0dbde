"""Micro-batches: which comparisons share a forward pass, and which process computes which.

None of this changes a result: losses are added up and divided once, by the weight of the whole step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from basereward.comparison import Comparison
from basereward.config.run import TrainConfig
from basereward.prepared import Size

IMAGE_CHARACTERS = 1500
"""About how many characters of text cost as much as an image, some hundreds of tokens."""

VIDEO_IMAGES = 8
"""About how many images cost as much as a video, whose frames are read in pairs."""


@dataclass(frozen=True)
class MicroBatchLimits:
    """The tokens and patches that fit one forward pass.

    Args:
        comparisons: At most this many comparisons.
        tokens: At most this many tokens, padding included.
        patches: At most this many patches of images.
        pads: Whether each comparison has a row of its own, as long as the longest.
    """

    comparisons: int
    tokens: float = float("inf")
    patches: float = float("inf")
    pads: bool = False

    @classmethod
    def of(cls, config: TrainConfig, *, pads: bool) -> MicroBatchLimits:
        """Return the limits of a run."""
        infinite = float("inf")
        return cls(
            min(config.micro_batch_size or config.batch_size, config.batch_size),
            config.micro_batch_tokens or infinite,
            config.micro_batch_patches or infinite,
            pads,
        )

    def fits(self, sizes: Sequence[Size]) -> bool:
        """Tell whether comparisons fit one forward pass together."""
        return (
            len(sizes) <= self.comparisons
            and self.padded_tokens(sizes) <= self.tokens
            and sum(size.patches for size in sizes) <= self.patches
        )

    def padded_tokens(self, sizes: Sequence[Size]) -> int:
        """Return the tokens of one forward pass of comparisons, padding included."""
        tokens = [size.tokens for size in sizes]
        return len(tokens) * max(tokens) if self.pads else sum(tokens)


def micro_batches(sizes: Sequence[Size], limits: MicroBatchLimits) -> list[list[int]]:
    """Return the numbers of the comparisons of each micro-batch, like lengths together.

    A comparison over the limits has a micro-batch of its own. The largest come first, so that a step that
    doesn't fit the memory fails at once.
    """
    batches: list[list[int]] = []
    for number in sorted(range(len(sizes)), key=lambda number: (-sizes[number].tokens, number)):
        if batches and limits.fits([sizes[other] for other in (*batches[-1], number)]):
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches


def balanced_partition(costs: Sequence[float], num_ranks: int) -> list[list[int]]:
    """Divide items among processes: the most expensive first, each to the least loaded process (LPT).

    Args:
        costs: Of each item; an estimate will do, but it must be the same in all processes.
        num_ranks: How many processes there are.

    Returns:
        For each process the numbers of its items, in order.
    """
    parts: list[list[int]] = [[] for _ in range(num_ranks)]
    loads = [(0.0, 0)] * num_ranks
    for number in sorted(range(len(costs)), key=lambda number: (-costs[number], number)):
        rank = min(range(num_ranks), key=lambda rank: (loads[rank], rank))
        parts[rank].append(number)
        loads[rank] = (loads[rank][0] + costs[number], loads[rank][1] + 1)
    return [sorted(numbers) for numbers in parts]


def estimated_size(comparison: Comparison) -> int:
    """Return about how much work a comparison is, in characters of text, without opening its images."""
    prompt = sum(len(message.text) for message in comparison.prompt)
    images = len(comparison.images) + VIDEO_IMAGES * len(comparison.videos)
    return prompt + sum(map(len, comparison.responses)) + IMAGE_CHARACTERS * images
