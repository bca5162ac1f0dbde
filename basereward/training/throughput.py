"""How much work a training does, and how fast: pairs, tokens, and places that hold none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from basereward.scoring.batching import Budget, Size


@dataclass
class Work:
    """What was computed since the last record of the log, in one process or in all.

    Args:
        num_pairs: Pairs, of all processes.
        num_tokens: Tokens.
        num_places: Places in rows, those that hold no token included.
        num_patches: Patches of images.
        flops: Floating-point operations, as far as they are known.
        num_ranks: Processes that did it.
    """

    num_pairs: float = 0.0
    num_tokens: int = 0
    num_places: int = 0
    num_patches: int = 0
    flops: float = 0.0
    num_ranks: int = 1

    @classmethod
    def over(cls, parts: Sequence[Work]) -> Work:
        """Return the work of all processes."""
        return cls(
            parts[0].num_pairs,
            sum(part.num_tokens for part in parts),
            sum(part.num_places for part in parts),
            sum(part.num_patches for part in parts),
            sum(part.flops for part in parts),
            len(parts),
        )

    def add(
        self, sizes: Sequence[Size], passes: Sequence[Sequence[int]], budget: Budget, flops: float
    ) -> None:
        """Add the forward passes of a step."""
        self.num_tokens += sum(size.tokens for size in sizes)
        self.num_places += sum(budget.places([sizes[number] for number in group]) for group in passes)
        self.num_patches += sum(size.patches for size in sizes)
        self.flops += flops

    def rates(self, seconds: float, peak_flops: float | None) -> dict[str, float]:
        """Return what a record of the log says of it; what isn't known is left out.

        Args:
            seconds: How long it took.
            peak_flops: Operations a second that each process's device has at most; None where unknown.
        """
        found = {"pairs_per_second": self.num_pairs / seconds}
        if self.num_tokens:
            found["tokens_per_second"] = self.num_tokens / seconds
            found["fill"] = self.num_tokens / self.num_places
        if self.flops:
            found["tflops_per_second"] = self.flops / seconds / 1e12
            if peak_flops:
                found["mfu"] = self.flops / seconds / (peak_flops * self.num_ranks)
        return found
