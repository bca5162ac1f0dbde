"""TRL's GRPOTrainer with R1-Reward's advantage filter (arXiv 2505.02835, section 4).

Its other change, ratios clipped to [0.001, 1000] before their clipping to 1 ± 0.2, is left out: GRPO's own
clipping bounds what is multiplied by the advantage, and with one optimizer step a batch the ratios are 1.
"""

from __future__ import annotations

from typing import Any

from trl import GRPOTrainer

from basereward.errors import ConfigError


class FilteredGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer that takes no step for advantages further than `max_advantage` standard deviations off.

    Advantages have to be in standard deviations: `scale_rewards="batch"`, as in the paper, or `"group"` with
    enough generations, since of n values none is further than (n - 1) / √n from their mean.

    Args:
        max_advantage: The largest advantage, either way, that isn't set to 0.

    Raises:
        ConfigError: When the settings leave the filter nothing to do.
    """

    def __init__(self, *args: Any, max_advantage: float = 3.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not max_advantage > 0:
            raise ConfigError(f"max_advantage is a number > 0, not {max_advantage}")
        scaled, num = self.args.scale_rewards, self.args.num_generations
        if scaled == "none" or (scaled == "group" and (num - 1) / num**0.5 <= max_advantage):
            raise ConfigError(
                f"no advantage is ever beyond {max_advantage:g} standard deviations with scale_rewards = "
                f"{scaled!r} and {num} generations; set scale_rewards = 'batch'"
            )
        self.max_advantage = max_advantage
        self.num_filtered = 0

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the loss, in which advantages beyond the limit count as 0."""
        advantages = inputs["advantages"]  # [B]
        is_far = advantages.abs() > self.max_advantage
        self.num_filtered += int(is_far.sum())
        return super().compute_loss(
            model, {**inputs, "advantages": advantages.masked_fill(is_far, 0.0)}, *args, **kwargs
        )
