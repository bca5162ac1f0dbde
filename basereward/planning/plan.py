"""The memory, FLOPs and time that a training takes on some GPUs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from torch import nn

from basereward.backbones.untrusted_settings import reading
from basereward.config.conversion import ValidationError
from basereward.config.run import LoraConfig, RunConfig, TrainConfig
from basereward.costs.accelerators import Accelerator
from basereward.costs.architecture import Architecture
from basereward.costs.communication import bandwidth, communication
from basereward.costs.flops import Counts, Flops, flops
from basereward.costs.memory import FP32, Memory, memory
from basereward.errors import ConfigError, ModelError
from basereward.planning.lengths import Lengths, Measure, Overrides, lengths
from basereward.planning.meta_model import meta_model
from basereward.plugins.plugin_manager import PluginManager
from basereward.training import parameter_groups
from basereward.training.lora import Adapters
from basereward.training.resolve import resolve_run

USABLE = 0.9
"""Share of a GPU's memory that a plan fills: CUDA itself, libraries and scattered gaps take the rest."""


@dataclass(frozen=True)
class Part:
    """Parameters of a part of the model, and how many of them are trained."""

    parameters: int
    trained: int


@dataclass(frozen=True)
class Change:
    """A change of settings with which a run fits: the settings to write, and the bytes on each GPU."""

    settings: tuple[str, ...]
    bytes_on_gpu: float


@dataclass(frozen=True)
class Plan:
    """The memory, FLOPs and time of a training.

    Args:
        sizes_from: The source of the model's sizes.
        parts: Parameters of each part.
        rows: The sizes of the data's rows.
        num_steps: Optimizer steps.
        num_comparisons: Comparisons, those seen again counted again.
        rows_in_pass: Comparisons of a forward pass, of mean length and of the longest.
        on_average: Memory with rows of mean length.
        at_most: Memory with the longest rows.
        usable_bytes: Of a GPU's memory.
        logits_bytes: Bytes of a language-model head's logits in a pass of the longest rows, fp32.
        with_tree: FLOPs of a comparison.
        without_tree: FLOPs of a comparison whose responses each have a copy of the prompt.
        head_flops: FLOPs that a language-model head would add to a comparison.
        busy_gpus: GPUs that have something to do: no more than a batch has comparisons.
        communication_bytes: Bytes that each GPU receives from the others in a step.
        communication_seconds: How long that takes.
        seconds: The shortest and longest time of the training, evaluations and checkpoints not counted.
        changes: Changes with which it fits; empty if it fits without, or if none of them helps.
    """

    sizes_from: str
    parts: dict[str, Part]
    rows: Lengths
    num_steps: int
    num_comparisons: int
    rows_in_pass: tuple[int, int]
    on_average: Memory
    at_most: Memory
    usable_bytes: float
    logits_bytes: float
    with_tree: Flops
    without_tree: Flops
    head_flops: float
    busy_gpus: int
    communication_bytes: float
    communication_seconds: float
    seconds: tuple[float, float]
    changes: tuple[Change, ...]

    @property
    def fits(self) -> bool:
        """Whether even the longest rows fit the memory."""
        return self.at_most.total <= self.usable_bytes


@dataclass(frozen=True)
class _Model:
    """A run's model without weights, frozen and with adapters as the run says."""

    reward_model: Any
    trainable: Mapping[str, Sequence[nn.Parameter]]
    architecture: Architecture
    sizes_from: str


def plan(
    run: RunConfig,
    plugins: PluginManager,
    gpu: Accelerator,
    *,
    num_gpus: int,
    mfu: tuple[float, float],
    overrides: Overrides,
    config_file: Path | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Plan a run without stages, or one stage.

    Args:
        run: The run.
        plugins: Where components are looked up.
        gpu: The kind of GPU.
        num_gpus: How many of them.
        mfu: Lowest and highest share of the GPU's peak that the model's own FLOPs reach while nothing is
            waited for; FLOPs that are computed twice come on top.
        overrides: Lengths that the user knows.
        config_file: The backbone's `config.json`, where its sizes aren't known otherwise.
        progress: Takes the name of each data set before it is read.

    Raises:
        ConfigError: When a setting is wrong, or the model's sizes or the number of rows aren't known.
    """
    run = resolve_run(run, plugins)
    model = _model(run, plugins, config_file)
    architecture = model.architecture
    bf16 = run.train.precision != "fp32"
    shared = bool(run.paradigm.options.get("share_prompts", True) and model.reward_model.backbone.shares)
    measure = Measure(model.reward_model, architecture, run.backbone.options, _tokenizer(run))
    rows = lengths(run, measure, plugins, shared=shared, overrides=overrides, progress=progress)

    def needs(config: TrainConfig, counts: Counts, of: _Model = model) -> tuple[int, Memory]:
        number = _rows_in_pass(config, counts, num_gpus // config.tensor_ranks)
        estimate = memory(
            of.reward_model,
            of.trainable,
            of.architecture,
            config,
            counts * number,
            num_ranks=num_gpus,
            bf16=bf16,
        )
        return number, estimate

    usable = USABLE * gpu.memory_gb * 1e9
    average, longest = needs(run.train, rows.mean), needs(run.train, rows.longest)
    with_tree, without_tree = (
        flops(architecture, counts, recomputes=run.train.activation_checkpointing)
        for counts in (rows.mean, rows.alone)
    )
    num_steps = math.ceil(run.train.epochs * math.ceil(rows.num_rows / run.train.batch_size) - 1e-9)
    num_steps = min(num_steps, run.train.max_steps or num_steps)
    num_comparisons = round(min(num_steps * run.train.batch_size, rows.num_rows * run.train.epochs))
    if num_gpus % run.train.tensor_ranks:
        raise ConfigError(
            f"train.tensor_ranks is {run.train.tensor_ranks}, which doesn't divide {num_gpus} GPUs; plan for "
            "another number of them"
        )
    num_data_ranks = num_gpus // run.train.tensor_ranks
    busy = min(num_data_ranks, run.train.batch_size) * run.train.tensor_ranks
    peak = 1e12 * (gpu.bf16_tflops if bf16 else gpu.fp32_tflops)
    num_passes = math.ceil(math.ceil(run.train.batch_size / num_data_ranks) / average[0])
    received = communication(
        model.reward_model,
        run.train,
        num_ranks=num_gpus,
        num_passes=num_passes,
        bf16=bf16,
        tokens=rows.mean.tokens * average[0],
    )
    receiving = received / bandwidth(gpu, num_gpus)
    computing = [num_comparisons * with_tree.total / (busy * peak * share) for share in mfu]
    changes: tuple[Change, ...] = ()
    if longest[1].total > usable:
        changes = _changes(run, model, plugins, config_file, needs, rows.longest, usable, num_gpus)
    width, vocabulary = architecture.language.width, architecture.vocabulary
    return Plan(
        sizes_from=model.sizes_from,
        parts=_parts(model),
        rows=rows,
        num_steps=num_steps,
        num_comparisons=num_comparisons,
        rows_in_pass=(average[0], longest[0]),
        on_average=average[1],
        at_most=longest[1],
        usable_bytes=usable,
        logits_bytes=FP32 * vocabulary * rows.longest.tokens * longest[0],
        with_tree=with_tree,
        without_tree=without_tree,
        head_flops=3 * 2 * width * vocabulary * rows.mean.tokens,
        busy_gpus=busy,
        communication_bytes=received,
        communication_seconds=receiving,
        # At best all communication overlaps with computation, at worst none does.
        seconds=(max(computing[1], num_steps * receiving), computing[0] + num_steps * receiving),
        changes=changes,
    )


def _model(run: RunConfig, plugins: PluginManager, config_file: Path | None) -> _Model:
    reward_model, source = meta_model(run, plugins, config_file)
    Adapters(reward_model.backbone, run.train, "")
    trainable = parameter_groups.trainable_parts(reward_model.part_parameters(), run.train)
    architecture = Architecture.of(reward_model)
    assert architecture is not None
    return _Model(reward_model, trainable, architecture, source)


def _parts(model: _Model) -> dict[str, Part]:
    trained = {id(item) for items in model.trainable.values() for item in items}
    return {
        name: Part(
            sum(item.numel() for item in items),
            sum(item.numel() for item in items if id(item) in trained),
        )
        for name, items in model.reward_model.part_parameters().items()
    }


def _tokenizer(run: RunConfig) -> Any:
    """Return the run's tokenizer if it is on this machine."""
    from transformers import AutoTokenizer

    model = str(run.backbone.options.get("model", ""))
    try:
        with reading(model, "the tokenizer (tokenizer.json, tokenizer_config.json)"):
            return AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    except ModelError:
        if Path(model, "tokenizer.json").is_file():
            raise
        return None


def _rows_in_pass(config: TrainConfig, counts: Counts, num_gpus: int) -> int:
    """Return the comparisons of a forward pass in a process, if all are like these."""
    share = math.ceil(config.batch_size / num_gpus)
    limits = [share, config.micro_batch_size or share]
    for budget, size in (
        (config.micro_batch_tokens, counts.tokens),
        (config.micro_batch_patches, counts.patches),
    ):
        if budget is not None and size:
            limits.append(int(budget // size))
    return max(1, min(limits))


Needs = Callable[..., tuple[int, Memory]]


def _changes(
    run: RunConfig,
    model: _Model,
    plugins: PluginManager,
    config_file: Path | None,
    needs: Needs,
    counts: Counts,
    usable: float,
    num_gpus: int,
) -> tuple[Change, ...]:
    """Return ways to make it fit, each with as few changes as will do: as it is, with 8 bits, with LoRA."""
    ways = []
    small = {"parallel": "fsdp", "micro_batch_size": 1, "activation_checkpointing": True}
    for extra in ({}, {"optimizer": "adamw-8bit"}, {"lora": LoraConfig()}):
        if "lora" in extra and run.train.lora is not None:
            continue
        for settings in _choices(small):
            try:
                config = replace(run.train, **{**settings, **extra})
            except ValidationError:  # the settings exclude each other
                continue
            if config.parallel == "fsdp" and num_gpus == 1:
                continue
            try:
                of = _model(replace(run, train=config), plugins, config_file) if "lora" in extra else model
            except ConfigError:  # PEFT isn't installed, or can't be used with what is frozen
                break
            _, memory_then = needs(config, counts, of)
            if memory_then.total <= usable:
                changed = [
                    _setting(name, value)
                    for name, value in {**settings, **extra}.items()
                    if getattr(run.train, name) != value
                ]
                ways.append(Change(tuple(changed), memory_then.total))
                break
    return tuple(ways)


def _choices(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the subsets, smaller ones first."""
    for number in range(len(settings) + 1):
        for names in combinations(settings, number):
            yield {name: settings[name] for name in names}


def _setting(name: str, value: Any) -> str:
    if isinstance(value, LoraConfig):
        return f"train.lora.rank={value.rank}"
    return f"train.{name}={str(value).lower() if isinstance(value, bool) else value}"


def checked_mfu(low: float, high: float) -> tuple[float, float]:
    """Return a range of utilisation.

    Raises:
        ConfigError: When it is none.
    """
    if not 0 < low <= high <= 1:
        raise ConfigError(
            f"--mfu is {low:g} {high:g}; allowed: two shares above 0 and up to 1, the lower first"
        )
    return low, high
