"""Prepare rows as a training would: with a run's tokenizer, processor and templates, without its weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from basereward.backbones.transformers_model import without_weights
from basereward.comparison import Comparison
from basereward.config.run import RunConfig
from basereward.errors import DataError
from basereward.plugins.plugin_manager import PluginManager
from basereward.prepared import Size
from basereward.scoring.reward_model import RewardModel
from basereward.training.lora import Adapters
from basereward.training.model_state import initial_model
from basereward.training.parameter_groups import check_quantized, trainable_parts
from basereward.training.requirements import check_installed

TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model")


@dataclass(frozen=True)
class PreparedRows:
    """The sizes of rows that were prepared, and the errors of those that were refused.

    Attributes:
        sizes: The tokens and patches of each row that a model could read.
        refused: The error of each of the others, with its place.
        num_truncated: Responses that were cut.
    """

    sizes: Sequence[Size]
    refused: Sequence[DataError]
    num_truncated: int = 0

    def __str__(self) -> str:
        tokens = [size.tokens for size in self.sizes if size.tokens]
        if not tokens:
            return ""
        text = f"{min(tokens):,} to {max(tokens):,} tokens a row, {fmean(tokens):,.0f} on average"
        patches = [size.patches for size in self.sizes]
        if any(patches):
            text += f"; up to {max(patches):,} patches of images"
        return text + (f"; {self.num_truncated} responses cut" if self.num_truncated else "")


def is_here(run: RunConfig) -> bool:
    """Tell whether the settings and the tokenizer of a run's model are on this machine.

    A backbone without the option `model`, or with None, has no files.
    """
    model = run.backbone.options.get("model") if run.init is None else run.init
    # Without a slash it is no hub id: a name that the backbone itself knows, or a mistake that it will tell.
    if model is None or os.path.isdir(str(model)) or "/" not in str(model):
        return True
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    def is_cached(name: str) -> bool:
        try:
            return isinstance(try_to_load_from_cache(str(model), name), str)
        except (HFValidationError, OSError, ValueError):
            return False

    return is_cached("config.json") and any(map(is_cached, TOKENIZERS))


def model_without_weights(run: RunConfig, plugins: PluginManager) -> RewardModel:
    """Return a run's model, its adapters added and its parts frozen, as the training will begin with it.

    Models of transformers have no weights. Backbones of other kinds are built as they are.

    Args:
        run: Its components' options filled in.
        plugins: Where components are looked up.

    Raises:
        ConfigError: When its components don't go together, a name matches no part or layer of the model, or
            a library is not installed.
        ModelError: When a file of the model is missing or damaged.
    """
    with without_weights():
        model = initial_model(run, plugins, verify=False)
        check_quantized(run)
        Adapters(model.backbone, run.train, "")
        trainable_parts(model.part_parameters(), run.train)
        check_installed(run)
    return model


def prepare_rows(model: RewardModel, rows: Iterable[Comparison], *, is_training: bool) -> PreparedRows:
    """Prepare rows: open their images, and tokenize.

    Args:
        model: The model.
        rows: The rows.
        is_training: Whether they are prepared to learn from, or to be scored.
    """
    model.paradigm.train(is_training)
    before = model.num_truncated
    sizes, refused = list[Size](), list[DataError]()
    for row in rows:
        try:
            sizes.append(model.paradigm.prepare(row).size)
        except DataError as error:
            refused.append(row.place.locate(error))
    return PreparedRows(sizes, refused, model.num_truncated - before)


def open_rows(rows: Iterable[Comparison]) -> PreparedRows:
    """Open the images and the first frames of rows, without a model to prepare them."""
    refused = []
    for row in rows:
        try:
            for image in (*row.images, *(frame for video in row.videos for frame in video.sampled(2).frames)):
                image.open()
        except DataError as error:
            refused.append(row.place.locate(error))
    return PreparedRows((), refused)
