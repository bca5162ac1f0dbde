"""StableReinforce's clipping of ratios before PPO's own (arXiv 2505.02835, section 4).

PPO multiplies an advantage A by the ratio r of a token's probabilities, and takes the smaller of r A and
clip(r, 1 - e, 1 + e) A. For A < 0 and r > 1 + e that is r A: nothing bounds it, and a probability that rose
a thousandfold makes the step. The exponential of such a difference overflows, too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def clip_ratios(
    logps: Tensor,  # [B, T]
    old_logps: Tensor,  # [B, T]
    max_ratio: float,
) -> Tensor:  # [B, T]
    """Return log-probabilities whose ratios to the old ones are within [1 / max_ratio, max_ratio].

    A token whose ratio was beyond has no gradient.
    """
    bound = math.log(max_ratio)
    return old_logps + (logps - old_logps).clamp(-bound, bound)
