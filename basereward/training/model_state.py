"""What learns: a model over processes, its optimizer, and the averages of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from basereward.backbones.feature_cache import FeatureCache
from basereward.config.run import RunConfig
from basereward.costs.accelerators import peak_flops
from basereward.costs.flops import StepFlops
from basereward.errors import ConfigError
from basereward.plugins.plugin_manager import PluginManager
from basereward.scoring.batching import Budget
from basereward.scoring.reward_model import RewardModel
from basereward.training import checkpoint_state, optimizers, parallelize, parameter_groups, precision
from basereward.training.activation_checkpointing import recompute
from basereward.training.checkpoints import Checkpoint
from basereward.training.distributed import Ranks
from basereward.training.ema import WeightAverage
from basereward.training.lora import Adapters
from basereward.training.optimizer_step import Updater


class Learner:
    """A model in training.

    Args:
        config: The run, its components' options filled in.
        plugins: Where components are looked up.
        ranks: The processes that train together.

    Attributes:
        passing: The paradigm as a module; scores too.
        updater: Takes steps.
        autocast: Returns the context in which the model runs.
        budget: What fits one forward pass.
        step_flops: Counts the operations of a step in this process; 0 where that isn't known.
        peak_flops: Operations a second that the device has at most; None where that isn't known.
        description: What is trained where, for people.
    """

    def __init__(self, config: RunConfig, plugins: PluginManager, ranks: Ranks) -> None:
        settings = config.train
        self.ranks = ranks
        self.model = _starting_model(config, plugins)
        is_sharded = settings.parallel == "fsdp" and ranks.size > 1
        # What is to be divided goes to the device block by block: the whole may not fit.
        paradigm: Any = self.model.paradigm if is_sharded else self.model.paradigm.to(ranks.device)
        backbone: Any = self.model.backbone
        bf16 = precision.computes_in_bf16(settings.precision, ranks.device, backbone.dim)
        self.autocast = partial(precision.autocast, ranks.device, bf16)
        self.adapters = Adapters(backbone, settings, str(config.init or self.model.record["base_model"]))
        parameter_groups.trainable_parts(self.model.part_parameters(), settings)
        self.cache: FeatureCache | None = None
        if config.cache is not None:
            if is_sharded:
                raise ConfigError(
                    "cache: what divided weights make of inputs isn't kept; leave out cache, or set "
                    'train.parallel = "ddp"'
                )
            self.cache = FeatureCache(config.cache)
            # Which parts are trained, and where they are, is settled now.
            paradigm.attach_feature_cache(self.cache, str(torch.bfloat16) if bf16 else "weights")
        if settings.activation_checkpointing:
            recompute(backbone.blocks())
        self.passing = parallelize.Pass(paradigm)
        module = parallelize.over_ranks(self.passing, ranks, settings, bf16=bf16)
        # Asked again, since sharding has put other tensors in their places.
        parts = parameter_groups.trainable_parts(self.model.part_parameters(), settings)
        parameters = [parameter for parameters in parts.values() for parameter in parameters]
        self.optimizer = optimizers.build(parts, settings)
        self.updater = Updater(
            module,
            parameters,
            self.optimizer,
            ranks,
            clip_norm=settings.clip_norm,
            autocast=self.autocast,
        )
        self._frozen = [part for name, part in backbone.parts().items() if name not in parts]
        self._trained = checkpoint_state.trained_tensors(paradigm, self._frozen)
        self.average = WeightAverage(self._trained, settings.ema_decay)
        self.budget = Budget.of(settings, pads=paradigm.pads)
        self.step_flops = StepFlops(self.model)
        self.peak_flops = peak_flops(ranks.device, bf16=bf16)
        num_parameters = sum(parameter.numel() for parameter in parameters)
        place = ranks.device.type
        if ranks.size > 1:
            place = f"{ranks.size} processes ({settings.parallel}) on {place}"
        self.description = (
            f"training {', '.join(parts)} ({num_parameters:,} parameters) on {place} in "
            f"{'bf16' if bf16 else 'fp32'}"
        )

    def release(self) -> None:
        """Take no more steps, and let the other processes go."""
        if self.cache is not None:
            self.cache.flush()
        parallelize.release(self.updater.module)

    def train_mode(self) -> None:
        """Switch to training what is trained."""
        self.passing.train()
        for module in self._frozen:
            module.eval()  # or its dropout would be on, and its running averages move

    def add_up(
        self, passes: Sequence[Sequence[Any]], num_passes: int, spare: Any
    ) -> tuple[list[list[float]], float]:
        """Leave the gradients of a step in the parameters; see `Updater.add_up`."""
        return self.updater.add_up(passes, num_passes, spare)

    def apply(self, step: int) -> None:
        """Change the weights, and their averages.

        Args:
            step: The step's number, counted from 1.
        """
        self.updater.apply()
        self.average.update(step)

    def save_model(
        self, directory: Path, record: Mapping[str, Any], *, adapter_directory: Path | None = None
    ) -> None:
        """Save the model as it is evaluated: with the averages, if there are some, and whole.

        Args:
            directory: Where the model goes.
            record: What is known of its training.
            adapter_directory: Where its adapters go, if it has some and they are to be saved alone, too.
        """

        def save() -> None:
            with self.adapters.merged():
                self.model.save(directory, **record)
            if adapter_directory is not None:
                self.adapters.save(adapter_directory)

        with self.average.applied(), parallelize.whole(self.passing, self.ranks):
            self.ranks.first(save)

    def capture(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the tensors of a checkpoint by group."""
        return checkpoint_state.capture(self._weights(), self.optimizer)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint.

        Raises:
            CheckpointError: When it is of a model with other tensors.
        """
        checkpoint_state.restore(checkpoint, self._weights(), self.optimizer)

    def _weights(self) -> dict[str, Mapping[str, Tensor]]:
        averages = {checkpoint_state.AVERAGE: self.average.tensors} if self.average.tensors else {}
        return {checkpoint_state.MODEL: self._trained, **averages}


def _starting_model(config: RunConfig, plugins: PluginManager) -> RewardModel:
    components = {
        "backbone": config.backbone,
        "head": config.head,
        "loss": config.loss,
        "paradigm": config.paradigm,
    }
    if config.init is None:
        return RewardModel.build(**components, plugins=plugins)
    return RewardModel.start(config.init, **components, plugins=plugins)
