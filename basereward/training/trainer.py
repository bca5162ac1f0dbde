"""`RewardTrainer`: a training called as TRL's is, by the engine of run files."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Self, TypeAlias

from basereward import protocols
from basereward.comparison import Comparison
from basereward.config.conversion import Component, component_of
from basereward.config.run import DataConfig, RunConfig, Source
from basereward.data.formats import detected, open_rows
from basereward.data.writing import open_writer
from basereward.errors import ConfigError, DataError
from basereward.evaluation.evaluator import evaluate
from basereward.interop.importing import backbone_of
from basereward.plugins.options import component_options
from basereward.plugins.plugin_manager import manager
from basereward.scoring.reward_model import RewardModel
from basereward.storage.atomic import write_text
from basereward.storage.hub import UNREAD, fetch_hint, is_hub_id, snapshot
from basereward.storage.outputs import claim_directory
from basereward.training.script_calls import Processes, print_metrics, write_metrics
from basereward.training.stage import TrainResult
from basereward.training.train import train
from basereward.training.trainer_config import RewardConfig, lora_of, refuse_others

Rows: TypeAlias = "str | Path | Iterable[Comparison | Mapping[str, Any]] | protocols.Dataset"
MARK = ".basereward-data"
"""The file that marks a directory of data that was in memory."""

NAMES = [*(f"{part}.jsonl{more}" for part in ("train", "eval", "more") for more in ("", "-files")), "start"]
"""All that is written there."""

MEDIA = frozenset({"image", "images", "video", "videos", "frames"})
"""Keys of rows and messages that name images and videos."""

ARGUMENTS = (
    "model",
    "args",
    "train_dataset",
    "eval_dataset",
    "processing_class",
    "quantization_config",
    "peft_config",
)

Start: TypeAlias = "str | Path | Component | Mapping[str, Any] | RewardModel"


class RewardTrainer:
    """Trains a reward model on pairs, with the arguments of TRL's `RewardTrainer`.

    Data is a path, a list of comparisons, a list of rows of any layout that files may have (such as
    `{"prompt", "chosen", "rejected", "images"}`), or a `datasets.Dataset`. Data in memory is written
    beside the run, to `OUTPUT_DIR-data`, so that the run file `OUTPUT_DIR/run.toml` describes the whole
    training. Relative paths of images in such rows start from the working directory.

    Args:
        model: A directory of a transformers model, or `owner/name` of the hub; a backbone, as a `Component`
            or a table; or a `RewardModel`.
        args: The settings; the defaults are TRL's, with a directory that is named after the model.
        train_dataset: The training data.
        eval_dataset: The held-out data.
        processing_class: The model's own tokenizer, as scripts for TRL pass it; any other is refused.
        quantization_config: A `transformers.BitsAndBytesConfig` of 4 bits, for the weights beneath adapters.
        peft_config: Adapters to train instead of the weights: a `peft.LoraConfig`, a dictionary of its
            settings, or `basereward.config.LoraConfig`.

    Raises:
        ConfigError: When a setting can't be carried out.
        DataError: When the data can't be read.
    """

    def __new__(cls, *args: object, **arguments: object) -> Self:
        """Return the trainer, unless there is an argument of TRL's that it doesn't take."""
        refuse_others(arguments, ARGUMENTS, "RewardTrainer")
        return super().__new__(cls)

    def __init__(
        self,
        model: Start,
        args: RewardConfig | None = None,
        *,
        train_dataset: Rows,
        eval_dataset: Rows | None = None,
        processing_class: Any = None,
        quantization_config: Any = None,
        peft_config: Any = None,
    ) -> None:
        self.args = args = args or RewardConfig(_default_directory(model))
        self._started: RewardModel | None = model if isinstance(model, RewardModel) else None
        backbone = _backbone(model, args, args.options_of_backbone(quantization_config))
        if processing_class is not None:
            _check_tokenizer(processing_class, backbone)
        aside = Path(f"{args.output_dir}-data")
        source = _source(train_dataset, aside / "train")
        evals = () if eval_dataset is None else (_source(eval_dataset, aside / "eval"),)
        loss = component_of(args.loss, "loss")
        if args.center_rewards_coefficient is not None:
            options = {**loss.options, "zero_coefficient": args.center_rewards_coefficient}
            loss = Component(loss.name, options)
        self.config = RunConfig(
            output=args.output_dir,
            seed=args.seed,
            fresh_head=args.fresh_head,
            log=args.trackers,
            backbone=backbone,
            head=component_of(args.head, "head"),
            loss=loss,
            data=DataConfig(
                train=(Source(source.name, source.options),),
                eval=() if args.eval_strategy == "no" else evals,
            ),
            train=args.train_config(
                num_rows=_count(source) if args.warmup_steps >= 1 else None,
                lora=lora_of(peft_config),
                has_eval=bool(evals) and args.eval_strategy != "no",
            ),
        )
        self._held_out = evals
        self.result: TrainResult | None = None
        self.accelerator = Processes()

    def train(self, resume_from_checkpoint: bool | str | None = None) -> TrainResult:
        """Train, and return the directories of the models and the result of the best one on held-out data.

        Args:
            resume_from_checkpoint: Whether to continue from the newest checkpoint of the run; "True" and
                "False" are read as on a command line.

        Raises:
            ConfigError: When a checkpoint is named, since the newest complete one is used.
        """
        if isinstance(resume_from_checkpoint, str):
            said = {"true": True, "false": False}
            resume_from_checkpoint = said.get(resume_from_checkpoint.lower(), resume_from_checkpoint)
        if isinstance(resume_from_checkpoint, str | Path):
            raise ConfigError(
                f"resume_from_checkpoint is {str(resume_from_checkpoint)!r}; True goes on from the newest "
                f"checkpoint of {self.args.output_dir}"
            )
        options: dict[str, Any] = {
            "resume": bool(resume_from_checkpoint),
            "overwrite": self.args.overwrite_output_dir and not resume_from_checkpoint,
            "progress": not self.args.disable_tqdm,
        }
        if self._started is None:
            self.result = train(self.config, **options)
            return self.result
        start = _claimed(Path(f"{self.args.output_dir}-data")) / "start"
        self._started.save(start)
        self.result = train(replace(self.config, init=str(start)), **options)
        return self.result

    @property
    def model(self) -> RewardModel:
        """The best model of the training that was done, or the last, loaded from its directory.

        Raises:
            ConfigError: Before `train`.
        """
        return RewardModel.load(self._model_dir)

    @property
    def _model_dir(self) -> Path:
        if self.result is None:
            raise ConfigError("there is no model yet; call train() first")
        return self.result.model_dir if self.args.load_best_model_at_end else self.result.last_dir

    def evaluate(self, eval_dataset: Rows | None = None) -> dict[str, float]:
        """Return accuracy and other metrics of the best model, with the prefix `eval_`.

        Args:
            eval_dataset: Data to evaluate on; None for the trainer's held-out data.

        Raises:
            ConfigError: Before `train`, or without held-out data.
        """
        held_out = self._held_out
        if eval_dataset is not None:
            held_out = (_source(eval_dataset, Path(f"{self.args.output_dir}-data", "more")),)
        if not held_out:
            raise ConfigError("there is no held-out data; give eval_dataset")
        [source] = held_out
        rows = open_rows(None, source.name, source.options)
        args = self.args
        batch_size = args.per_device_eval_batch_size or args.per_device_train_batch_size
        evaluation = evaluate(self.model, rows, batch_size=batch_size)
        return {
            "eval_accuracy": evaluation.accuracy.value,
            "eval_log_loss": evaluation.metrics.log_loss,
            "eval_num_pairs": float(evaluation.accuracy.num_pairs),
        }

    def save_model(self, output_dir: str | Path | None = None) -> Path:
        """Write the model as a model directory, which `RewardModel.load` reads, and return its path.

        The model is also uploaded if the settings' `push_to_hub` is True.

        Args:
            output_dir: The directory; None, or the run's own directory, to leave the model where it is.
        """
        directory = self._model_dir
        if output_dir is not None and Path(output_dir).absolute() != Path(self.args.output_dir).absolute():
            directory = Path(output_dir)
            self.model.save(directory)
        if self.args.push_to_hub:
            self.push_to_hub()
        return directory

    @property
    def hub_model_id(self) -> str:
        """The repository of the hub that the model is uploaded to."""
        if (name := self.args.hub_model_id or Path(self.args.output_dir).name) and "/" in name:
            return name
        from huggingface_hub import HfApi

        return f"{HfApi(token=self.args.hub_token).whoami()['name']}/{name}"

    def push_to_hub(self, commit_message: str = "Upload a reward model", **card: object) -> str:
        """Upload the model, and return the commit's address.

        Args:
            commit_message: Describes the commit.
            card: Facts for TRL's model card, such as `dataset_name`; BaseReward's card has those of the run.
        """
        return self.model.push_to_hub(
            self.hub_model_id,
            private=self.args.hub_private_repo,
            token=self.args.hub_token,
            commit_message=commit_message,
        )

    def log_metrics(self, split: str, metrics: Mapping[str, float]) -> None:
        """Print the metrics of a split, such as those of `evaluate`."""
        if self.accelerator.is_main_process:
            print_metrics(split, metrics)

    def save_metrics(self, split: str, metrics: Mapping[str, float]) -> None:
        """Write the metrics of a split to `SPLIT_results.json` and `all_results.json` of the run."""
        if self.accelerator.is_main_process:
            write_metrics(Path(self.args.output_dir), split, metrics)

    def end(self) -> None:
        """Do nothing: trackers and processes are ended by `train`. Scripts for TRL call it last."""


def _default_directory(model: Start) -> str:
    if isinstance(model, RewardModel):
        return RewardConfig.output_dir
    if isinstance(model, Component | Mapping):
        return f"{component_of(model, 'model').name}-Reward"
    return f"{Path(model).name}-Reward"


def _backbone(model: Start, args: RewardConfig, options: Mapping[str, Any]) -> Component:
    if isinstance(model, RewardModel):
        described = model.components["backbone"]
        name, limits = described["name"], _limits(described["name"], args)
        return Component(name, {**described["options"], **limits, **options})
    if isinstance(model, Component | Mapping):
        given = component_of(model, "model")
        return Component(given.name, {**_limits(given.name, args), **given.options, **options})
    directory = _directory(model, args.revision)
    name = backbone_of(directory)
    return Component(name, {"model": str(directory), **_limits(name, args), **options})


def _directory(model: str | Path, revision: str | None) -> Path:
    """Return a directory of a transformers model, which comes from the hub unless it is there."""
    try:
        if is_hub_id(str(model)):
            return snapshot(str(model), "model", revision=revision, needs="config.json", leave_out=UNREAD)
    except OSError as error:
        raise ConfigError(f"{model} is no directory, and can't be fetched from the hub: {error}") from error
    if not Path(model, "config.json").is_file():
        raise ConfigError(
            f"{model} is no directory of a transformers model; or give the backbone as a table, such as "
            f'{{"name": "qwen-vl", "model": ...}}{fetch_hint(model)}'
        )
    return Path(model)


def _check_tokenizer(given: Any, backbone: Component) -> None:
    """Check that a tokenizer, or a processor's, is the model's own, but for padding."""
    from transformers import AutoTokenizer, ProcessorMixin

    if "model" not in backbone.options:
        raise ConfigError(f"processing_class: {backbone.name} makes its tokens by itself; leave it out")
    expected = AutoTokenizer.from_pretrained(backbone.options["model"])
    if isinstance(given, ProcessorMixin):
        given = given.tokenizer
    if (given.get_vocab(), given.chat_template) != (expected.get_vocab(), expected.chat_template):
        raise ConfigError(
            "processing_class differs from the model's own in its words or its chat template; save it into "
            "a copy of the model's directory, and give that as the model"
        )


def _limits(backbone: str, args: RewardConfig) -> dict[str, Any]:
    """Return the backbone's option for `max_length`, which is no error where it has none, as by default."""
    has_limit = "max_tokens" in component_options(manager().load("backbone", backbone))
    if args.max_length is None or (not has_limit and args.max_length == RewardConfig.max_length):
        return {}
    return {"max_tokens": args.max_length}


def _source(rows: Rows, stem: Path) -> Component:
    """Return the data set that reads the rows, which are written to a file unless they are in one."""
    if isinstance(rows, str | Path):
        return Component(detected(rows), {"path": str(rows)})
    path = _written(rows, stem)
    return Component(detected(path), {"path": str(path), "media_roots": (os.getcwd(),)})


def _written(rows: Iterable[Comparison | Mapping[str, Any]] | protocols.Dataset, stem: Path) -> Path:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("processes that train together read their data from a file; give its path")
    _claimed(stem.parent)
    path = stem.with_suffix(".jsonl")
    iterator = iter(rows)
    first = next(iterator, None)
    if first is None:
        raise DataError("has no rows", file=stem.name)
    if isinstance(first, Comparison):
        with open_writer(path, overwrite=True) as writer:
            for row in chain([first], iterator):
                if not isinstance(row, Comparison):
                    raise DataError(f"is no comparison, as those before it are, but a {type(row).__name__}")
                writer.write(row)
    else:
        lines = (json.dumps(_found(row), default=_encoded) for row in chain([first], iterator))
        write_text(path, "\n".join([*lines, ""]))
    return path


def _found(value: Any, *, is_media: bool = False) -> Any:
    """Return a row whose media are named by whole paths where they are files of the working directory."""
    if isinstance(value, Mapping):
        return {key: _found(item, is_media=is_media or key in MEDIA) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_found(item, is_media=is_media) for item in value]
    if is_media and isinstance(value, str | Path) and os.path.isfile(value):  # False for what is no path
        return os.path.abspath(value)
    return value


def _claimed(directory: Path) -> Path:
    claim_directory(directory, "the directory of the data,", mark=MARK, names=NAMES)
    return directory


def _encoded(value: object) -> object:
    """Return what JSON can't hold as what it can: an image of PIL as PNG, bytes as base64."""
    import PIL.Image

    if isinstance(value, PIL.Image.Image):
        buffer = io.BytesIO()
        value.save(buffer, "PNG")
        return {"bytes": base64.b64encode(buffer.getvalue()).decode("ascii")}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Path):
        return str(value.resolve())
    raise DataError(f"a row has a value of type {type(value).__name__}, which no data set has")


def _count(source: Component) -> int:
    return sum(not isinstance(row, DataError) for row in open_rows(None, source.name, source.options).read())
