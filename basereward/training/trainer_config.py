"""Settings of `RewardTrainer`, under the names and defaults that TRL and transformers have for them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

# Component is named by ComponentLike, which TRL's parser of arguments resolves in this module.
from basereward.config.conversion import Component as Component
from basereward.config.conversion import ComponentLike, did_you_mean
from basereward.config.run import LoraConfig, TrainConfig
from basereward.errors import ConfigError

UNWRITTEN: Mapping[str, object] = {
    "bias": "none",
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "exclude_modules": None,
    "target_parameters": None,
    "trainable_token_indices": None,
}
"""Settings of PEFT that adapters are not trained with here, and their values that ask for nothing."""

ELSEWHERE: Mapping[str, str] = {
    "callbacks": "numbers go to trackers by report_to, and early stopping is train.patience of a run file",
    "chat_template_path": "the template is the tokenizer's, in the model's directory",
    "compute_metrics": "evaluate() and basereward.evaluate have the metrics of pairs",
    "data_collator": "batches are made of the rows as they are",
    "dataset_num_proc": "dataloader_num_workers are the threads that prepare rows",
    "disable_dropout": "the model's config has its dropout, and peft_config that of adapters",
    "eos_token": "the end of a turn is the tokenizer's",
    "fp16": "bf16=True or bf16=False says the precision",
    "logging_strategy": "logging_steps says it",
    "optim": "it is AdamW; others are train.optimizer of a run file",
    "optimizer_cls_and_kwargs": "it is AdamW; others are train.optimizer of a run file",
    "optimizers": "it is AdamW; others are train.optimizer of a run file",
    "pad_to_multiple_of": "nothing is padded to a length",
    "pad_token": "nothing is padded by it",
    "preprocess_logits_for_metrics": "evaluate() and basereward.evaluate have the metrics of pairs",
    "save_strategy": "checkpoints come with each evaluation, or every save_steps",
}
"""Arguments of TRL's that are said in another way here."""

HEADS = {"score", "v_head", "head"}
"""Modules that PEFT is told to train whole with a reward head, which is trained here as ever."""


@dataclass(kw_only=True)
class RewardConfig:
    """The settings of a `RewardTrainer`; defaults are those of TRL 1.16 but for `eval_strategy` and
    `load_best_model_at_end`.

    Args:
        output_dir: Directory of the run.
        overwrite_output_dir: Whether an earlier run in this directory is replaced.
        head: The reward head: a name, a table or a `Component`; the paper's by default.
        loss: The loss; `center_rewards_coefficient` is its option `zero_coefficient`.
        backbone_options: Options of the backbone, such as {"max_pixels": 401408}, as a table or as JSON.
        model_init_kwargs: `dtype` and `revision`, as TRL's scripts give them, as a table or as JSON.
        trust_remote_code: Always False.
        fresh_head: Whether a trained reward head of the model's checkpoint is dropped.
        learning_rate: Peak learning rate.
        per_device_train_batch_size: Pairs of a forward pass.
        per_device_eval_batch_size: Pairs of a forward pass in `evaluate`; None for the number in training.
        gradient_accumulation_steps: Forward passes of an optimizer step, on each device.
        num_train_epochs: Passes over the training data.
        max_steps: Optimizer steps after which training ends; -1 for no limit.
        max_length: Limit of tokens in prompt and response; longer rows are listed in `rejected.jsonl`.
        center_rewards_coefficient: Strength of the pull of a pair's rewards to zero sum.
        warmup_ratio: Share of the steps in which the learning rate rises.
        warmup_steps: The same as a number of steps, or as a share below 1.
        lr_scheduler_type: Shape of the learning rate after the warm-up.
        weight_decay: Weight decay of AdamW.
        adam_beta1: First beta of AdamW.
        adam_beta2: Second beta of AdamW.
        max_grad_norm: Largest norm of the gradient.
        bf16: Whether matrix products are in bf16; None for bf16 if the device multiplies it fast.
        gradient_checkpointing: Whether activations are computed again in the backward pass.
        dataloader_num_workers: Threads that prepare the next batches.
        logging_steps: Steps between records of the log.
        eval_strategy: Time of evaluations on held-out data, if there is some.
        eval_steps: Steps between evaluations by `steps`; None for `logging_steps`.
        save_steps: Steps between checkpoints; None for one at each evaluation.
        save_total_limit: Checkpoints that are kept.
        metric_for_best_model: Metric of the held-out data that selects the best model.
        load_best_model_at_end: Whether the trainer's model is the best one, and not the last; both are kept.
        report_to: Experiment trackers: a name or a list of `wandb`, `trackio`, `mlflow`, `swanlab`.
            TensorBoard always gets the numbers.
        disable_tqdm: Whether no progress is shown.
        resume_from_checkpoint: For scripts, which hand it to `train`: "True" or "False".
        push_to_hub: Whether `save_model` also uploads the model.
        hub_model_id: `owner/name` to upload to; None for a repository of yours, named after `output_dir`.
        hub_token: The hub's token; None for that of `hf auth login`.
        hub_private_repo: Whether a new repository is private; None for the owner's default.
        seed: Seed of every random choice.

    Raises:
        ConfigError: For a setting of TRL's without a counterpart, or for an unknown setting.
    """

    output_dir: str = field(default="trainer_output", kw_only=False)
    overwrite_output_dir: bool = False
    head: ComponentLike = "mlp"
    loss: ComponentLike = "bradley-terry"
    backbone_options: Mapping[str, Any] | str = field(default_factory=dict)
    model_init_kwargs: Mapping[str, Any] | str | None = None
    trust_remote_code: bool = False
    fresh_head: bool = False
    learning_rate: float = 1e-4
    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int | None = None
    gradient_accumulation_steps: int = 1
    num_train_epochs: float = 3.0
    max_steps: int = -1
    max_length: int | None = 1024
    center_rewards_coefficient: float | None = None
    warmup_ratio: float = 0.0
    warmup_steps: float = 0
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0
    bf16: bool | None = None
    gradient_checkpointing: bool = True
    dataloader_num_workers: int = 1
    logging_steps: int = 10
    eval_strategy: Literal["no", "steps", "epoch"] = "epoch"
    eval_steps: int | None = None
    save_steps: int | None = None
    save_total_limit: int = 2
    metric_for_best_model: str = "accuracy"
    load_best_model_at_end: bool = True
    report_to: list[str] | str | None = None  # str second: TRL's parser of arguments takes that of a union
    disable_tqdm: bool = False
    resume_from_checkpoint: str | None = None
    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_token: str | None = field(default=None, repr=False)
    hub_private_repo: bool | None = None
    seed: int = 42

    def __new__(cls, *args: object, **settings: object) -> Self:
        """Return the settings, unless some are not among them, which all are named at once."""
        refuse_others(settings, [setting.name for setting in fields(cls)], "RewardConfig")
        return super().__new__(cls)

    @property
    def revision(self) -> str | None:
        """The branch, tag or commit of a model of the hub; None for that of its name, or the newest."""
        revision = _table(self.model_init_kwargs, "model_init_kwargs").get("revision")
        return None if revision in (None, "main") else str(revision)

    def options_of_backbone(self, quantization_config: Any = None) -> dict[str, Any]:
        """Return the backbone's options, those that TRL's names say among them.

        Args:
            quantization_config: A `transformers.BitsAndBytesConfig` of 4 bits.

        Raises:
            ConfigError: When a name of TRL's says what is not done here.
        """
        given = _table(self.model_init_kwargs, "model_init_kwargs")
        if self.trust_remote_code or given.get("trust_remote_code"):
            raise ConfigError("trust_remote_code is True; no code of a checkpoint is run; leave it out")
        options: dict[str, Any] = {}
        if (dtype := given.get("dtype")) is not None:
            options["dtype"] = str(dtype).removeprefix("torch.")
        if quantization_config is not None:
            if not quantization_config.load_in_4bit:
                raise ConfigError("quantization_config is of 8 bits; allowed: load_in_4bit=True")
            options["quantize"] = "4bit"
        done = {"dtype", "revision", "trust_remote_code"}
        if others := [name for name, value in given.items() if value is not None and name not in done]:
            raise ConfigError(
                f"model_init_kwargs has {', '.join(others)}; allowed: dtype, revision; options of the "
                "backbone are given by backbone_options"
            )
        return {**options, **_table(self.backbone_options, "backbone_options")}

    @property
    def trackers(self) -> tuple[Any, ...]:
        """The run file's `log`."""
        names = [self.report_to] if isinstance(self.report_to, str) else self.report_to or ()
        return tuple(name for name in names if name not in ("none", "tensorboard"))

    @property
    def batch_size(self) -> int:
        """Comparisons of a step, on all devices."""
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * world_size

    def train_config(self, *, num_rows: int | None, lora: LoraConfig | None, has_eval: bool) -> TrainConfig:
        """Return the settings of the training.

        Args:
            num_rows: Comparisons that are trained on; None where `warmup_steps` is no number of steps.
            lora: Adapters that are trained instead of the model.
            has_eval: Whether there is held-out data.
        """
        warmup = self.warmup_steps
        if num_rows is not None:
            steps = math.ceil(math.ceil(num_rows / self.batch_size) * self.num_train_epochs)
            warmup /= max(1, steps if self.max_steps < 0 else min(steps, self.max_steps))
        return TrainConfig(
            epochs=self.num_train_epochs,
            max_steps=None if self.max_steps < 0 else self.max_steps,
            batch_size=self.batch_size,
            micro_batch_size=self.per_device_train_batch_size,
            num_workers=max(1, self.dataloader_num_workers),
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            betas=(self.adam_beta1, self.adam_beta2),
            warmup_fraction=min(1.0, max(self.warmup_ratio, warmup)),
            schedule=self.lr_scheduler_type,
            clip_norm=self.max_grad_norm,
            precision="auto" if self.bf16 is None else "bf16" if self.bf16 else "fp32",
            lora=lora,
            activation_checkpointing=self.gradient_checkpointing,
            eval_every=(self.eval_steps or self.logging_steps) if self.eval_strategy == "steps" else None,
            best_by=self.metric_for_best_model if has_eval else "accuracy",
            save_every=self.save_steps,
            keep_checkpoints=self.save_total_limit,
            log_every=self.logging_steps,
        )


def _table(value: Mapping[str, Any] | str | None, name: str) -> Mapping[str, Any]:
    """Return a table that may be written as JSON, as on a command line."""
    if not isinstance(value, str):
        return value or {}
    try:
        table = json.loads(value)
    except ValueError as error:
        raise ConfigError(f"{name} is {value!r}, which is no JSON: {error}") from None
    if not isinstance(table, dict):
        raise ConfigError(f'{name} is {value!r}; write a table, such as \'{{"dtype": "bfloat16"}}\'')
    return table


def refuse_others(given: Iterable[str], allowed: Iterable[str], taker: str) -> None:
    """Refuse names that are not allowed, all in one message.

    Args:
        given: The names that were given.
        allowed: Those that there are.
        taker: What they were given to.

    Raises:
        ConfigError: Saying for each name what to write instead.
    """
    allowed = list(allowed)
    if not (others := [name for name in given if name not in allowed]):
        return
    from transformers import TrainingArguments

    theirs = {setting.name for setting in fields(TrainingArguments)}
    lines = []
    for name in others:
        why = ELSEWHERE.get(name) or ("nothing here is set by it" if name in theirs else "")
        lines.append(f"- {name}{': ' + why if why else did_you_mean(name, allowed)}")
    raise ConfigError("\n".join([f"{taker} does not take these; leave them out:", *lines]))


def lora_of(settings: Any) -> LoraConfig | None:
    """Return adapters by our settings, or by those of `peft.LoraConfig` or a dictionary of them.

    Raises:
        ConfigError: When a setting asks for what adapters are not trained with here.
    """
    if settings is None or isinstance(settings, LoraConfig):
        return settings
    table = dict(settings) if isinstance(settings, Mapping) else settings.to_dict()
    if str(table.get("peft_type", "LORA")).rpartition(".")[2] != "LORA":
        raise ConfigError(f"peft_config is of {table['peft_type']}; allowed: LoraConfig")
    for name, nothing in UNWRITTEN.items():
        if (value := table.get(name)) and value != nothing:
            raise ConfigError(f"peft_config.{name} is {value!r}, which is not trained here; leave it out")
    if others := set(table.get("modules_to_save") or ()) - HEADS:
        raise ConfigError(
            f"peft_config.modules_to_save names {', '.join(sorted(others))}; the head is trained as ever, "
            "and parts of the backbone are named by basereward.config.LoraConfig(whole_parts=...)"
        )
    targets: Any = table.get("target_modules") or "all-linear"
    if targets != "all-linear":
        targets = (targets,) if isinstance(targets, str) else tuple(sorted(targets))
    return LoraConfig(
        rank=table.get("r", 8),
        alpha=float(table.get("lora_alpha", 8)),
        dropout=float(table.get("lora_dropout", 0.0)),
        targets=targets,
        rslora=bool(table.get("use_rslora")),
        dora=bool(table.get("use_dora")),
    )
