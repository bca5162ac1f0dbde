"""The model, its optimizer and its EMA, on this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from basereward.backbones.feature_cache import FeatureCache
from basereward.backbones.trained_heads import check_no_trained_head
from basereward.config.run import RunConfig
from basereward.costs.accelerators import peak_flops
from basereward.costs.flops import StepFlops
from basereward.errors import ConfigError
from basereward.hardware.precision import Precision, training_precision
from basereward.plugins.plugin_manager import PluginManager
from basereward.protocols import Paradigm
from basereward.scoring.batching import MicroBatchLimits
from basereward.scoring.reward_model import RewardModel
from basereward.storage.model_directory import verify_share
from basereward.training import checkpoint_state, optimizers
from basereward.training.activation_checkpointing import checkpoint_activations
from basereward.training.checkpoints import Checkpoint
from basereward.training.compilation import compile_layers
from basereward.training.distributed import ProcessGroup
from basereward.training.ema import EMA
from basereward.training.gradients import align_missing_gradients, average_and_clip
from basereward.training.lora import Adapters
from basereward.training.parallelize import (
    ParadigmModule,
    full_parameters,
    no_sync,
    parallelize,
    release_ddp,
    reshard,
)
from basereward.training.parameter_groups import trainable_parts
from basereward.training.sharded_loading import ShardedLoading, whole_reason
from basereward.training.sharded_saving import written_by_all
from basereward.training.step_metrics import combined_sums, empty_sums


class TrainedModel:
    """A model in training.

    Attributes:
        reward_model: The reward model.
        module: Its paradigm as a module.
        scorer: The reward model as it scores in training: forward passes go through `module`.
        optimizer: The optimizer of the trained parameters.
        ema: The averages of the trained parameters.
        limits: What fits one micro-batch.
        step_flops: Counts the operations of a step on this rank; 0 where that isn't known.
        peak_flops: Peak operations per second of the device; None where that isn't known.
        precision: The precision of matrix products.
        description: The trained parts, the device and the precision, for people.
        loading: What the processes read of a model that is sharded, for people; empty for others.
        num_bytes_read: Bytes of weights that this process alone has read of a model that is sharded.
    """

    def __init__(
        self,
        run: RunConfig,
        plugins: PluginManager,
        group: ProcessGroup,
        precision: Precision | None = None,
    ) -> None:
        """Build the model; `precision` is that of the checkpoint that the training goes on from."""
        self.group, self.config = group, run.train
        if run.init is not None:
            group.on_all(partial(verify_share, Path(run.init), group.rank, group.world_size))
        build = partial(initial_model, run, plugins, verify=False)
        loading = None
        if self._is_sharded and not whole_reason(run):
            loading = ShardedLoading(build, group)
        self.reward_model = build() if loading is None else loading.model
        backbone = self.reward_model.backbone
        # One process decides for all, since a timed product may turn out otherwise in another.
        self.precision = precision or group.on_main(
            lambda: training_precision(run.train.precision, group.device, backbone.dim)
        )
        # FSDP moves the model to the device block by block: the whole may not fit.
        if not self._is_sharded:
            self.paradigm.to(group.device)

        # The order of these steps matters. Adapters decide what is frozen; caches and sharding depend on what
        # is frozen; FSDP's hooks must enclose a block that recomputes its activations; and since sharding
        # replaces the parameters, those to optimize are looked up afterwards.
        base_model = str(run.init or self.reward_model.record["base_model"])
        self.adapters = Adapters(backbone, run.train, base_model)
        self._freeze()
        self.cache = self._attach_cache(run.cache)
        if run.train.compile:
            compile_layers(backbone, group.device, self.precision)
        if run.train.activation_checkpointing:
            checkpoint_activations(backbone.blocks())
        self.module = ParadigmModule(self.paradigm)
        self._wrapped = parallelize(self.module, group, run.train, bf16=self.precision.name == "bf16")
        # The transformers model that no process has whole.
        self._divided = None
        if loading is not None:
            loading.fill()
            self._divided = loading.transformers_model
        parts = self._freeze()

        self._parameters = [parameter for parameters in parts.values() for parameter in parameters]
        self.optimizer = optimizers.build(parts, run.train)
        self._frozen = [part for name, part in backbone.parts().items() if name not in parts]
        self._trained = checkpoint_state.trained_tensors(self.paradigm, self._frozen)
        self.ema = EMA(self._trained, run.train.ema_decay)
        self.scorer = RewardModel(
            self.paradigm,
            self.reward_model.components,
            forward=self.module.score_of,
            precision=self.precision,
        )
        self.limits = self.scorer.limits = MicroBatchLimits.of(run.train, pads=self.paradigm.pads)
        self.scorer.num_workers = run.train.num_workers
        self.step_flops = StepFlops(self.reward_model)
        self.peak_flops = peak_flops(group.device, bf16=self.precision.name == "bf16")
        self.description = self._describe(parts)
        self.loading, self.num_bytes_read = "", 0
        if self._is_sharded:
            self.loading = f"each process reads all weights: {whole_reason(run)}"
        if loading is not None:
            self.loading, self.num_bytes_read = loading.description, loading.num_bytes_read

    @property
    def paradigm(self) -> Paradigm:
        """The paradigm of the reward model."""
        return self.reward_model.paradigm

    @property
    def _is_sharded(self) -> bool:
        return self.config.parallel == "fsdp" and self.group.world_size > 1

    def _freeze(self) -> dict[str, list[torch.nn.Parameter]]:
        """Freeze the parts in `train.freeze`, and return the trained parameters of the others."""
        return trainable_parts(self.reward_model.part_parameters(), self.config)

    def _attach_cache(self, directory: str | None) -> FeatureCache | None:
        """Attach a cache of what the frozen weights compute."""
        if directory is None:
            return None
        if self._is_sharded:
            raise ConfigError(
                "cache: does not work with train.parallel = 'fsdp', since the weights are sharded; leave out "
                'cache, or set train.parallel = "ddp"'
            )
        cache = FeatureCache(directory)
        self.paradigm.attach_feature_cache(cache, self.precision.cache_key)
        return cache

    def _describe(self, parts: Mapping[str, Sequence[torch.nn.Parameter]]) -> str:
        processes = ""
        if self.group.world_size > 1:
            tensor = f", {self.group.tensor_ranks} to a layer" if self.group.tensor_ranks > 1 else ""
            processes = f" with {self.group.world_size} processes ({self.config.parallel}{tensor})"
        num_parameters = sum(parameter.numel() for parameter in self._parameters)
        return f"training {', '.join(parts)} ({num_parameters:,} parameters){processes} {self.precision}"

    def train(self) -> None:
        """Switch the trained parts to training mode."""
        self.module.train()
        for part in self._frozen:
            part.eval()  # or its dropout would be on, and its running averages move

    def eval(self) -> None:
        """Switch the model to evaluation mode."""
        self.module.eval()

    def accumulate_gradients(
        self, micro_batches: Sequence[Sequence[Any]], num_micro_batches: int, dummy: Any
    ) -> tuple[list[list[float]], float]:
        """Compute the gradient of a step's mean loss over all micro-batches and ranks, and clip it.

        This is gradient accumulation: each micro-batch adds the gradient of its summed loss; at the end the
        sum of the weights of all pairs divides once. So the result is the mean over all pairs of the step,
        however they are split up.

        Args:
            micro_batches: The prepared comparisons of each micro-batch of this rank.
            num_micro_batches: The largest number of micro-batches of any rank: all run as many.
            dummy: A prepared comparison for micro-batches that contribute nothing.

        Returns:
            The metric sums of each rank of data, in the order of `sums_of`, and the gradient's norm before
            clipping.
        """
        sums = [empty_sums(self.group.device)]
        for number in range(num_micro_batches):
            is_last = number == num_micro_batches - 1
            is_dummy = number >= len(micro_batches)
            with nullcontext() if is_last else no_sync(self._wrapped):
                with self.precision.autocast():
                    loss, loss_sums = self._wrapped([dummy] if is_dummy else micro_batches[number])
                (loss * 0.0 if is_dummy else loss).backward()
            if not is_dummy:
                sums.append(loss_sums)
        align_missing_gradients(self._parameters, self.optimizer)
        rank_sums = self.group.all_gather_tensor(combined_sums(sums))  # [world size, 2 + S]
        rank_sums = rank_sums[:: self.group.tensor_ranks]
        norm = average_and_clip(
            self._parameters,
            rank_sums[:, 1].sum(),
            self.config.clip_norm,
            world_size=self.group.num_data_ranks,
        )
        # The step's only wait for the device; before the optimizer step, which must not apply a NaN.
        *flat, norm_value = torch.cat([rank_sums.flatten(), norm[None]]).tolist()
        width = rank_sums.shape[1]
        return [flat[start : start + width] for start in range(0, len(flat), width)], norm_value

    def optimizer_step(self, step: int) -> None:
        """Update the weights and their EMA, in a step counted from 1."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(step)

    def save_model(
        self, directory: Path, record: Mapping[str, Any], *, adapter_directory: Path | None = None
    ) -> None:
        """Save the model as it is validated: with EMA weights if there are any, adapters merged, unsharded.

        Args:
            directory: The model directory.
            record: Facts about the training.
            adapter_directory: Where the adapters are saved too, if there are any; None for nowhere.
        """

        with self.ema.applied():
            reshard(self.module)
            with written_by_all(self._divided, directory, self.group) as weights:
                divided = None if weights is None else self._divided

                def save() -> None:
                    with self.adapters.merged():
                        self.reward_model.save(directory, weights=weights, **record)
                    if adapter_directory is not None:
                        self.adapters.save(adapter_directory)

                with full_parameters(self.module, self.group, except_of=divided):
                    self.group.on_main(save)

    def state(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the tensors of a checkpoint by group."""
        return checkpoint_state.tensors_of(self._weights(), self.optimizer)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Load the tensors of a checkpoint.

        Raises:
            CheckpointError: When it is of a model with other tensors.
        """
        checkpoint_state.restore(checkpoint, self._weights(), self.optimizer)

    def _weights(self) -> dict[str, Mapping[str, Tensor]]:
        averages = {checkpoint_state.EMA: self.ema.tensors} if self.ema.tensors else {}
        return {checkpoint_state.MODEL: self._trained, **averages}

    def close(self) -> None:
        """Write the cache's pending entries, and release DDP's connections."""
        if self.cache is not None:
            self.cache.flush()
        release_ddp(self._wrapped)


def initial_model(run: RunConfig, plugins: PluginManager, *, verify: bool = True) -> RewardModel:
    """Return the model that a run begins with.

    Args:
        run: Its components' options filled in.
        plugins: Where components are looked up.
        verify: Whether every file of `init` is compared with its SHA-256.
    """
    components = {"backbone": run.backbone, "head": run.head, "loss": run.loss, "paradigm": run.paradigm}
    if run.init is None:
        source = run.backbone.options.get("model")
        if isinstance(source, str) and run.paradigm.name == "scalar" and not run.fresh_head:
            check_no_trained_head(source)
        return RewardModel.build(**components, plugins=plugins, fresh_head=run.fresh_head)
    return RewardModel.warm_start(run.init, **components, plugins=plugins, verify=verify)
