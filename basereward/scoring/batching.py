"""How the comparisons of a step are dealt to processes, and in each to forward passes.

None of this changes a result: losses are added up and divided once, by the weight of the whole step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from basereward.config.run import TrainConfig
from basereward.prepared import Size


@dataclass(frozen=True)
class Budget:
    """What fits one forward pass.

    Args:
        comparisons: At most this many.
        tokens: At most this many places for tokens.
        patches: At most this many patches of images.
        pads: Whether each comparison has a row of its own, as long as the longest.
    """

    comparisons: int
    tokens: float = float("inf")
    patches: float = float("inf")
    pads: bool = False

    @classmethod
    def of(cls, config: TrainConfig, *, pads: bool) -> Budget:
        """Return the budget that a run asks for."""
        infinite = float("inf")
        return cls(
            min(config.micro_batch_size or config.batch_size, config.batch_size),
            config.micro_batch_tokens or infinite,
            config.micro_batch_patches or infinite,
            pads,
        )

    def holds(self, sizes: Sequence[Size]) -> bool:
        """Tell whether comparisons fit one pass together."""
        return (
            len(sizes) <= self.comparisons
            and self.places(sizes) <= self.tokens
            and sum(size.patches for size in sizes) <= self.patches
        )

    def places(self, sizes: Sequence[Size]) -> int:
        """Return the places for tokens that comparisons take in one pass."""
        tokens = [size.tokens for size in sizes]
        return len(tokens) * max(tokens) if self.pads else sum(tokens)


def passes(sizes: Sequence[Size], budget: Budget) -> list[list[int]]:
    """Return the numbers of the comparisons of each forward pass, like lengths together.

    A comparison that is over the budget has a pass of its own. The largest come first, so that a step that
    doesn't fit the memory fails at once.
    """
    found: list[list[int]] = []
    for number in sorted(range(len(sizes)), key=lambda number: (-sizes[number].tokens, number)):
        if found and budget.holds([sizes[other] for other in (*found[-1], number)]):
            found[-1].append(number)
        else:
            found.append([number])
    return found


def shares(costs: Sequence[float], num_ranks: int) -> list[list[int]]:
    """Deal items to processes so that the costs are about even: the dearest first, each to whoever has least.

    Args:
        costs: Of each item; an estimate will do, but it must be the same in all processes.
        num_ranks: How many processes there are.

    Returns:
        For each process the numbers of its items, in order.
    """
    found: list[list[int]] = [[] for _ in range(num_ranks)]
    loads = [(0.0, 0)] * num_ranks
    for number in sorted(range(len(costs)), key=lambda number: (-costs[number], number)):
        rank = min(range(num_ranks), key=lambda rank: (loads[rank], rank))
        found[rank].append(number)
        loads[rank] = (loads[rank][0] + costs[number], loads[rank][1] + 1)
    return [sorted(numbers) for numbers in found]
