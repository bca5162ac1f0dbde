"""Throughput of a training: pairs, tokens, padding and floating-point operations per second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from basereward.prepared import Size
from basereward.scoring.batching import MicroBatchLimits


@dataclass
class Meter:
    """The work since the last record of the log, of one rank or of all.

    Args:
        num_pairs: Pairs of all ranks.
        num_tokens: Tokens.
        num_padded_tokens: Tokens and padding.
        num_patches: Image patches.
        flops: Floating-point operations, as far as they are known.
        world_size: Ranks that did the work.
    """

    num_pairs: float = 0.0
    num_tokens: int = 0
    num_padded_tokens: int = 0
    num_patches: int = 0
    flops: float = 0.0
    world_size: int = 1

    @classmethod
    def combined(cls, meters: Sequence[Meter], *, world_size: int) -> Meter:
        """Return the work of all ranks.

        Args:
            meters: Of each rank of data.
            world_size: All ranks.
        """
        return cls(
            meters[0].num_pairs,
            sum(meter.num_tokens for meter in meters),
            sum(meter.num_padded_tokens for meter in meters),
            sum(meter.num_patches for meter in meters),
            sum(meter.flops for meter in meters),
            world_size,
        )

    def add(
        self,
        sizes: Sequence[Size],
        micro_batches: Sequence[Sequence[int]],
        limits: MicroBatchLimits,
        flops: float,
    ) -> None:
        """Add the micro-batches of a step."""
        self.num_tokens += sum(size.tokens for size in sizes)
        self.num_padded_tokens += sum(
            limits.padded_tokens([sizes[number] for number in numbers]) for numbers in micro_batches
        )
        self.num_patches += sum(size.patches for size in sizes)
        self.flops += flops

    def rates(self, seconds: float, peak_flops: float | None) -> dict[str, float]:
        """Return the rates of a record of the log; unknown ones are left out.

        Args:
            seconds: The time that the work took.
            peak_flops: Peak operations per second of each rank's device; None where unknown.
        """
        rates = {"pairs_per_second": self.num_pairs / seconds}
        if self.num_tokens:
            rates["tokens_per_second"] = self.num_tokens / seconds
            rates["fill"] = self.num_tokens / self.num_padded_tokens
        if self.flops:
            rates["tflops_per_second"] = self.flops / seconds / 1e12
            if peak_flops:
                rates["mfu"] = self.flops / seconds / (peak_flops * self.world_size)
        return rates
