"""TRL's GRPOTrainer with R1-Reward's changes, of StableReinforce (arXiv 2505.02835, section 4)."""

from __future__ import annotations

from typing import Any

from trl import GRPOTrainer

from basereward.errors import ConfigError
from basereward.integrations.ratio_clip import clip_ratios


class FilteredGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer that takes no step for advantages further than `max_advantage` standard deviations off,
    and clips ratios before PPO's clipping.

    Advantages have to be in standard deviations: `scale_rewards="batch"`, as in the paper, or `"group"` with
    enough generations, since of n values none is further than (n - 1) / √n from their mean. Ratios differ
    from 1 where answers are learned from in several steps (`num_iterations`, `steps_per_generation`) or are
    written by another engine (`use_vllm`).

    Args:
        max_advantage: The largest advantage, either way, that isn't set to 0.
        max_ratio: The largest ratio of a token's probabilities, and the inverse of the smallest; None for no
            bound. A token beyond has no gradient, neither of PPO's term nor of KL's (`beta`).

    Raises:
        ConfigError: When the settings leave the filter nothing to do.
    """

    def __init__(
        self, *args: Any, max_advantage: float = 3.0, max_ratio: float | None = 1000.0, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if not max_advantage > 0:
            raise ConfigError(f"max_advantage is a number > 0, not {max_advantage}")
        if max_ratio is not None and not 1 < max_ratio < float("inf"):
            raise ConfigError(f"max_ratio is a finite number > 1 or None, not {max_ratio}")
        scaled, num = self.args.scale_rewards, self.args.num_generations
        if scaled == "none" or (scaled == "group" and (num - 1) / num**0.5 <= max_advantage):
            raise ConfigError(
                f"no advantage is ever beyond {max_advantage:g} standard deviations with scale_rewards = "
                f"{scaled!r} and {num} generations; set scale_rewards = 'batch'"
            )
        self.max_advantage = max_advantage
        self.max_ratio = max_ratio
        self.num_filtered = 0
        self._old_logps: Any = None

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the loss, in which advantages beyond the limit count as 0."""
        advantages = inputs["advantages"]  # [B]
        is_far = advantages.abs() > self.max_advantage
        self.num_filtered += int(is_far.sum())
        self._old_logps = inputs.get("old_per_token_logps")  # [B, T]; None where ratios are 1
        try:
            return super().compute_loss(
                model, {**inputs, "advantages": advantages.masked_fill(is_far, 0.0)}, *args, **kwargs
            )
        finally:
            self._old_logps = None

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        logps, *rest = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if self._old_logps is not None and self.max_ratio is not None:
            logps = clip_ratios(logps, self._old_logps, self.max_ratio)
        return (logps, *rest)
