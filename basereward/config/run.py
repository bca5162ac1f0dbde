"""The configuration of a run, as frozen dataclasses that check their own ranges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from basereward.config.conversion import Component, ValidationError, convert, from_table
from basereward.config.overrides import deep_merge
from basereward.config.toml import to_table


@dataclass(frozen=True, slots=True)
class Source(Component):
    """A data set to train on, and its part in the mixture.

    Args:
        weight: How often an epoch shows each of its rows: 0.5 is every other row, 2 is each twice.
        max_rows: At most this many of its rows are in an epoch, spread evenly over the data set; counted
            before `weight`.
        pairs: `together`: all pairs of a ranking are one row, whose prompt is computed once; `each`: every
            pair is a row; `one`: one pair, drawn at random, is a row. With `each` and `one`, `max_rows` and
            `weight` count pairs; ties are not pairs.
        wrong_images: Share of its rows with images, from 0 to 1, that are shown once more with the images of
            another row and with all responses tied, so that the model can't learn from the text alone which
            response fits an image; needs a loss that learns from ties. `max_rows` and `weight` count these
            rows, too.
        multimodal: Whether `data.mixture.multimodal_share` counts the data set among the data with images;
            None to decide by its first row.
        max_bad_share: Share of its rows that may be unreadable; None for `data.max_bad_share`.
    """

    weight: float = 1.0
    max_rows: int | None = None
    pairs: Literal["together", "each", "one"] = "together"
    wrong_images: float = 0.0
    multimodal: bool | None = None
    max_bad_share: float | None = None

    def __post_init__(self) -> None:
        _check(("weight",), self.weight, 0 <= self.weight < float("inf"), "0 or above")
        _check(("max_rows",), self.max_rows, self.max_rows is None or self.max_rows >= 1, "at least 1")
        _check(("wrong_images",), self.wrong_images, 0 <= self.wrong_images <= 1, "from 0 to 1")
        share = self.max_bad_share
        _check(("max_bad_share",), share, share is None or 0 <= share <= 1, "from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """The shares of the data sets in an epoch; none of this changes its number of rows.

    Args:
        temperature: 1 keeps the proportions of the data sets' sizes, larger values make them more equal: the
            number of rows is proportional to size^(1 / temperature).
        multimodal_share: Share of rows from data sets with images; None to leave it unchanged.
        shuffle_buffer: Rows in memory at once when the data is streamed; they are shuffled together.
    """

    temperature: float = 1.0
    multimodal_share: float | None = None
    shuffle_buffer: int = 4096

    def __post_init__(self) -> None:
        _check(("temperature",), self.temperature, 0 < self.temperature < float("inf"), "above 0")
        share = self.multimodal_share
        _check(("multimodal_share",), share, share is None or 0 <= share <= 1, "from 0 to 1")
        _check(("shuffle_buffer",), self.shuffle_buffer, self.shuffle_buffer >= 1, "at least 1")


COMPONENTS: Any = tuple[Component, ...]
TRACKER = Literal["wandb", "trackio", "mlflow", "swanlab"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The training data and the held-out data.

    Args:
        train: The training data: `[[data.train]]` tables with a `name`, usually a `path`, the share in the
            mixture, and options of the data set.
        eval: Held-out data sets: `[[data.eval]]` tables with `name`, `path` and options.
        on_bad_row: Whether a row that can't be used ends the run, or is listed in `rejected.jsonl`.
        max_bad_share: Share of a data set's rows that may be unreadable and skipped; if there are more, the
            run ends at its start. Of streamed data, some rows of each file are looked at.
        mixture: The number of rows that an epoch shows of each data set.
        exclude_eval: Whether training rows are left out if their prompt, images included, is in the held-out
            data.
        curation: Steps for the training data, in this order: `[[data.curation]]` tables with the `name` of
            the step and its options.
        streaming: Whether the training data is read while training, instead of being held in memory.
    """

    train: tuple[Source, ...]
    eval: tuple[Component, ...] = ()
    on_bad_row: Literal["fail", "skip"] = "skip"
    max_bad_share: float = 0.1
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    exclude_eval: bool = False
    curation: tuple[Component, ...] = ()
    streaming: bool = False

    def __post_init__(self) -> None:
        for name, items in (("train", tuple[Source, ...]), ("eval", COMPONENTS), ("curation", COMPONENTS)):
            object.__setattr__(self, name, convert(getattr(self, name), items, (name,)))
        if not self.train:
            raise ValidationError(("train",), "must name at least one data set")
        if self.exclude_eval and not self.eval:
            raise ValidationError(("exclude_eval",), "needs held-out data; add a [[data.eval]] table")
        share = self.max_bad_share
        _check(("max_bad_share",), share, 0 <= share <= 1, "from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters instead of the weights themselves (arXiv 2106.09685), by PEFT.

    The backbone is frozen but for its adapters; the head is trained as ever. Models are saved with the
    adapters merged into their weights, and the adapters alone in PEFT's own format beside them.

    Args:
        rank: Rank of the product of two matrices that is added to each weight.
        alpha: Scale of this product: it is multiplied by alpha / rank.
        dropout: Share of an adapter's inputs dropped in training.
        targets: Ends of the names of linear layers that get an adapter, such as `q_proj`; `all-linear` for
            all linear layers.
        parts: Parts of the backbone that get adapters.
        whole_parts: Parts that are trained in full, such as `projector`.
        rslora: Whether `alpha` is divided by the root of the rank instead (arXiv 2312.03732).
        dora: Whether magnitudes are trained beside directions (arXiv 2402.09353).
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    parts: tuple[str, ...] = ("language",)
    whole_parts: tuple[str, ...] = ()
    rslora: bool = False
    dora: bool = False

    def __post_init__(self) -> None:
        _check(("rank",), self.rank, self.rank >= 1, "at least 1")
        _check(("alpha",), self.alpha, 0 < self.alpha < float("inf"), "above 0")
        _check(("dropout",), self.dropout, 0 <= self.dropout < 1, "from 0 up to, not including, 1")
        for name in ("targets", "parts"):
            if not getattr(self, name):
                raise ValidationError(
                    (name,), "must not be empty; leave out [train.lora] to train without adapters"
                )


DEFAULT_LR = 3e-6
"""Of weights: the paper's (arXiv 2509.16127, section 5.1)."""

DEFAULT_ADAPTER_LR = 1e-4
"""Of adapters: the lower end of QLoRA's (arXiv 2305.14314)."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The hyperparameters and the schedule of a training.

    Args:
        epochs: Passes over the training data; a fraction ends within a pass.
        max_steps: Optimizer steps after which training ends, if that comes first.
        batch_size: Comparisons in an optimizer step.
        micro_batch_size: Comparisons in a forward pass; None for the whole batch. Changes memory, not
            results.
        micro_batch_tokens: Limit of token positions in a forward pass, with a comparison's prompt counted
            once; None for no limit. Changes memory, not results.
        micro_batch_patches: Limit of image patches in a forward pass; None for no limit. Changes memory, not
            results.
        num_workers: Threads of each process that open images and tokenize ahead.
        parallel: Kind of training with several processes of `torchrun`: `ddp` gives each a copy of the model,
            `fsdp` a shard.
        shard_ranks: Processes that share one copy under `fsdp` (HSDP); None for all. If `tensor_ranks` is
            above 1, the number of groups that share one copy.
        tensor_ranks: Processes that divide each layer of the decoder (tensor parallelism), under `fsdp`; they
            get the same comparisons.
        lr: Peak learning rate; None for 3e-6 (arXiv 2509.16127, section 5.1), or for 1e-4 with `lora`, since
            adapters begin at zero (QLoRA, arXiv 2305.14314, used 1e-4 to 2e-4).
        lr_parts: Peak learning rates of single parts of the model, such as `head`, instead of `lr`.
        optimizer: `adamw`; `adafactor`, whose moments take the memory of a row and a column of each matrix
            (arXiv 1804.04235), and whose learning rate is relative to the size of the weights; or
            `adamw-8bit`, whose moments take a quarter of the memory (bitsandbytes, arXiv 2110.02861).
        weight_decay: Weight decay, multiplied by the learning rate; not on biases and norms.
        betas: Betas of AdamW.
        warmup_fraction: Share of the steps in which the learning rate rises linearly.
        schedule: Shape of the learning rate after the warm-up.
        clip_norm: Largest norm of the gradient; 0 for no clipping.
        device: Device of the training; `auto` for the GPU of each process, or the CPU if there is none.
        precision: Precision of matrix products; `auto` uses bf16 if the device multiplies it fast. Heads and
            losses are fp32.
        deterministic: Whether torch uses only algorithms that give the same bits in every run, which are
            slower on a GPU; an algorithm without such a form ends the training with torch's error.
        freeze: Parts of the model that aren't trained, such as `vision`.
        lora: Trains adapters instead of the backbone's weights; None to train the weights.
        ema_decay: Decay of the exponential moving average of the weights, at most (1 + step) / (10 + step);
            the average is evaluated and saved. 0 for no average.
        activation_checkpointing: Whether the activations of each layer are computed again in the backward
            pass instead of being kept (gradient checkpointing). Changes memory and time, not results.
        compile: Whether `torch.compile` compiles each layer of the decoder; on a GPU in bf16. Changes time,
            and last digits.
        eval_every: Steps between evaluations; None for one after each epoch.
        best_by: Metric of the held-out data that selects the best model; `log_loss` decides between equal
            ones. Higher is better, except for `log_loss`, `brier` and `ece`; prefix another metric with `-`
            to minimize it, as in `-reward_std`.
        patience: Evaluations in a row without a better model before training ends; None for any number.
        save_every: Steps between checkpoints; None for one at each evaluation.
        keep_checkpoints: Number of checkpoints that are kept; with 2 there is another if the newest is
            damaged.
        background_checkpoints: Whether training continues while a checkpoint is written from a copy in CPU
            memory.
        log_every: Steps between records in the log.
        shuffle: Whether each epoch has its own random order.
    """

    epochs: float = 1.0
    max_steps: int | None = None
    batch_size: int = 16
    micro_batch_size: int | None = None
    micro_batch_tokens: int | None = None
    micro_batch_patches: int | None = None
    num_workers: int = 1
    parallel: Literal["ddp", "fsdp"] = "ddp"
    shard_ranks: int | None = None
    tensor_ranks: int = 1
    lr: float | None = None
    lr_parts: Mapping[str, float] = field(default_factory=dict)
    optimizer: Literal["adamw", "adafactor", "adamw-8bit"] = "adamw"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_fraction: float = 0.05
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    clip_norm: float = 1.0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    deterministic: bool = False
    freeze: tuple[str, ...] = ()
    lora: LoraConfig | None = None
    ema_decay: float = 0.0
    activation_checkpointing: bool = False
    compile: bool = False
    eval_every: int | None = None
    best_by: str = "accuracy"
    patience: int | None = None
    save_every: int | None = None
    keep_checkpoints: int = 2
    background_checkpoints: bool = False
    log_every: int = 10
    shuffle: bool = True

    def __post_init__(self) -> None:
        counts = (
            "max_steps",
            "batch_size",
            "num_workers",
            "shard_ranks",
            "tensor_ranks",
            "keep_checkpoints",
            "eval_every",
            "save_every",
            "log_every",
            "patience",
        )
        for name in (*counts, "micro_batch_size", "micro_batch_tokens", "micro_batch_patches"):
            value = getattr(self, name)
            _check((name,), value, value is None or value >= 1, "at least 1")
        _check(("epochs",), self.epochs, 0 < self.epochs < float("inf"), "above 0")
        for name in ("lr", "weight_decay", "clip_norm"):
            value = getattr(self, name)
            _check((name,), value, value is None or 0 <= value < float("inf"), "0 or above")
        for part, value in self.lr_parts.items():
            _check(("lr_parts", part), value, 0 <= value < float("inf"), "0 or above")
        for index, value in enumerate(self.betas):
            _check(("betas", str(index)), value, 0 <= value < 1, "from 0 up to, not including, 1")
        _check(("warmup_fraction",), self.warmup_fraction, 0 <= self.warmup_fraction <= 1, "from 0 to 1")
        _check(("ema_decay",), self.ema_decay, 0 <= self.ema_decay < 1, "from 0 up to, not including, 1")
        if self.optimizer == "adafactor" and self.betas != (0.9, 0.999):
            raise ValidationError(("betas",), "is of AdamW, and the optimizer is 'adafactor'; leave it out")
        if self.parallel == "fsdp" and self.optimizer != "adamw":
            reason = f"not {self.optimizer!r}, which needs whole matrices"
            raise ValidationError(("optimizer",), f"must be 'adamw' where parallel is 'fsdp', {reason}")
        if self.tensor_ranks > 1 and self.parallel != "fsdp":
            raise ValidationError(("tensor_ranks",), "is for parallel = 'fsdp'; set that, or leave it out")
        if self.tensor_ranks > 1 and self.compile:
            raise ValidationError(("tensor_ranks",), "doesn't go with compile; leave one of them out")

    @property
    def peak_lr(self) -> float:
        """The peak learning rate, given or by default."""
        if self.lr is not None:
            return self.lr
        return DEFAULT_LR if self.lora is None else DEFAULT_ADAPTER_LR


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One of several trainings that a run consists of, each going on with the model of the one before.

    Args:
        name: Name of the stage, and of its directory within the run's directory.
        start: Model of the previous stage from which it starts: the `last`, or the `best` on held-out data.
        data: Differences from the `data` of the run; a list replaces the run's whole list.
        train: Differences from the `train` of the run.
    """

    name: str
    start: Literal["last", "best"] = "last"
    data: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ValidationError(("name",), f"must be of letters, digits, - and _, not {self.name!r}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training: its components, its data, its hyperparameters and the directory of its results.

    Paths are relative to the directory that the run is started in.

    Args:
        output: Directory of the run.
        seed: Seed of every random choice.
        backbone: Computes hidden states; its option `model` says where the weights are.
        head: Computes rewards from hidden states.
        loss: Compares rewards with ranks.
        paradigm: Combines backbone, head and loss.
        data: The training data and the held-out data.
        train: The hyperparameters.
        cache: Directory for the outputs of frozen weights, which epochs and runs share: features of images if
            the vision tower is frozen, hidden states if the whole backbone is frozen; None to keep nothing.
            It changes no result.
        init: A model directory from which backbone and head start; the backbone's `model` isn't read then.
        fresh_head: Whether the head starts from random weights if the backbone's `model` has a trained reward
            head; otherwise this is an error.
        stages: Trainings one after the other, each starting from a model of the previous one: `[[stages]]`
            tables with a `name` and differences in `data` and `train`.
        plugins: Modules to load as plugins, like `-p MODULE`.
        log: Experiment trackers that get the numbers of `log.jsonl` too: `wandb`, `trackio`, `mlflow`,
            `swanlab`, each a separate package. TensorBoard always gets them.
    """

    output: str
    seed: int = 0
    init: str | None = None
    fresh_head: bool = False
    cache: str | None = None
    plugins: tuple[str, ...] = ()
    log: tuple[TRACKER, ...] = ()
    backbone: Component
    head: Component = Component("mlp")  # noqa: RUF009
    loss: Component = Component("bradley-terry")  # noqa: RUF009
    paradigm: Component = Component("scalar")  # noqa: RUF009
    data: DataConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        # Python code may give names and tables too.
        for name, kind in TABLES.items():
            object.__setattr__(self, name, convert(getattr(self, name), kind, (name,)))
        if not self.output:
            raise ValidationError(("output",), "must be the path of a directory, not an empty string")
        _check(("seed",), self.seed, 0 <= self.seed < 2**63, "from 0 to 2**63 - 1")
        names = [stage.name for stage in self.stages]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise ValidationError(("stages", str(number), "name"), f"is {name!r}, as another stage's is")
        if self.stages:
            stage_runs(self)  # finds the mistakes of later stages before the first one starts
        elif not self.data.eval:
            for key, default in (("best_by", "accuracy"), ("patience", None)):
                if getattr(self.train, key) != default:
                    raise ValidationError(("train", key), "needs held-out data; add a [[data.eval]] table")


TABLES: Mapping[str, Any] = {
    **dict.fromkeys(("backbone", "head", "loss", "paradigm"), Component),
    "data": DataConfig,
    "train": TrainConfig,
    "log": tuple[TRACKER, ...],
}
"""The settings of a `RunConfig` that a name or a table may stand for."""


def stage_runs(run: RunConfig) -> list[RunConfig]:
    """Return the run of each stage, from the first to the last; of a run without stages itself alone.

    Raises:
        ValidationError: When a change of a stage is no setting of a run.
    """
    if not run.stages:
        return [run]
    table = to_table(run)
    del table["stages"]
    runs = []
    for number, stage in enumerate(run.stages):
        settings = {**table, "output": str(Path(run.output, stage.name))}
        if number:
            model = "model" if stage.start == "best" else "last"
            settings["init"] = str(Path(run.output, run.stages[number - 1].name, model))
        settings = deep_merge(settings, {"data": stage.data, "train": stage.train})
        try:
            runs.append(from_table(RunConfig, settings))
        except ValidationError as error:
            raise ValidationError(("stages", str(number), *error.path), error.reason) from None
    return runs


def _check(path: tuple[str, ...], value: object, holds: bool, range_: str) -> None:
    if not holds:
        raise ValidationError(path, f"must be {range_}, not {value}")
