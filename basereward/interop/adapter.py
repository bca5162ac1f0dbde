"""A checkpoint that is an adapter: merge it into its base model, with the head that lies beside it."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from basereward.backbones.hub_kernels import prepare_peft, without_kernels
from basereward.backbones.transformers_model import source_arguments
from basereward.backbones.untrusted_settings import check_settings, reading
from basereward.errors import ConfigError, ModelError
from basereward.extras import install_command
from basereward.storage.reading import read_json

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
HEAD_FILE = "head.safetensors"

PREFIX = "base_model.model."
"""What PEFT writes before a tensor's name in its model."""

TOKENIZER_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
"""Patterns of the files of tokenizers and processors."""

MODEL_FILES = frozenset({"config.json", "generation_config.json", CONFIG_FILE, "trainer_state.json"})
"""Files that these patterns match, too, and that are not a tokenizer's."""


READ = frozenset(
    {
        "r",
        "lora_alpha",
        "use_rslora",
        "use_dora",
        "target_modules",
        "exclude_modules",
        "target_parameters",
        "rank_pattern",
        "alpha_pattern",
        "layers_to_transform",
        "layers_pattern",
        "layer_replication",
        "fan_in_fan_out",
        "bias",
        "lora_bias",
        "modules_to_save",
    }
)
"""The settings of an adapter that are read, as PEFT means them."""

IGNORED = frozenset(
    {
        "peft_type",
        "peft_version",
        "task_type",
        "base_model_name_or_path",
        "revision",
        "auto_mapping",
        "inference_mode",
        "lora_dropout",
        "init_lora_weights",
    }
)
"""Settings without which the adapter's weights mean the same; `init_lora_weights` is checked apart."""

KEEPING_THE_BASE = (None, True, False, "gaussian", "orthogonal", "eva")
"""Ways to begin a training that leave the base model's weights as they are. PiSSA, OLoRA, CorDA and LoftQ
change them, and their adapters mean nothing on the base itself."""


@contextmanager
def merged_checkpoint(source: Path, base: str | Path | None, head_names: Collection[str]) -> Iterator[Path]:
    """Yield a directory with the whole model of a checkpoint: the directory itself, or its adapter merged.

    An adapter is one of PEFT: LoRA, rsLoRA or DoRA. Its head is among its tensors, as TRL and ms-swift write
    it, or in a file of its own, as LLaMA-Factory writes it.

    Args:
        source: The checkpoint.
        base: The model that an adapter was trained on; a name in the checkpoint itself is not followed.
        head_names: The names that tensors of heads may have.

    Raises:
        ConfigError: When an adapter comes without `base`, or PEFT is not installed.
        ModelError: When the adapter doesn't fit the base.
    """
    if not (source / CONFIG_FILE).is_file():
        if base is not None:
            raise ConfigError(f"{source} is no adapter, for it has no {CONFIG_FILE}; leave out --base")
        yield source
        return
    config = _read_config(source / CONFIG_FILE)
    if config.get("peft_type") != "LORA":
        raise ConfigError(
            f"{source} is an adapter of the kind {config.get('peft_type')!r}; only LORA is read"
        )
    if base is None:
        name = config.get("base_model_name_or_path")
        raise ConfigError(
            f"{source} is an adapter of the model {name!r}; give that model's directory by --base DIR"
        )
    if not (source / WEIGHTS_FILE).is_file():
        raise ConfigError(f"{source} has no {WEIGHTS_FILE}; adapters in pickled files are not read")
    with TemporaryDirectory(prefix="basereward-merged-") as temporary:
        place = Path(temporary)
        tensors = {_plain_name(name): tensor for name, tensor in load_file(source / WEIGHTS_FILE).items()}
        head = {name: tensor for name, tensor in tensors.items() if name in head_names}
        adapter = {name: tensor for name, tensor in tensors.items() if name not in head_names}
        with reading(source, "the adapter"):
            _merge(source, config, Path(base), adapter, head).save_pretrained(place)
        for directory in (Path(base), source):
            copy_tokenizer(directory, place)
        if head:
            save_file({name: tensor.contiguous() for name, tensor in head.items()}, place / HEAD_FILE)
        for path in source.glob("value_head.*"):
            if path.is_file():
                shutil.copyfile(path, place / path.name)
        yield place


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
        if not isinstance(config, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error
    return config


def _check_config(source: Path, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse an adapter whose weights depend on what is not read here.

    PEFT imports the module that a setting names, and computes for others; none of these reaches it.

    Args:
        source: The adapter's directory.
        config: Its settings.
        defaults: PEFT's own, which it writes for what is not used.
    """
    unread = [
        key
        for key, value in config.items()
        if value and key not in READ and key not in IGNORED and value != defaults.get(key)
    ]
    if unread:
        raise ConfigError(
            f"{source}: {CONFIG_FILE} sets {', '.join(unread)}, which is not read; merge the adapter by PEFT "
            "and import the whole model"
        )
    way = config.get("init_lora_weights")
    if way not in KEEPING_THE_BASE:
        raise ConfigError(
            f"{source}: the adapter began as {way!r}, which changes the base model's weights; merge it by "
            "PEFT and import the whole model"
        )


def _plain_name(name: str) -> str:
    """Return a tensor's name in the model that the adapter was trained on."""
    return (
        name.removeprefix(PREFIX).replace(".modules_to_save.default.", ".").replace(".modules_to_save.", ".")
    )


def _merge(
    source: Path, settings: Mapping[str, Any], base: Path, adapter: dict[str, Tensor], head: Collection[str]
) -> Any:
    """Return the base model with an adapter's tensors merged into its weights."""
    prepare_peft()
    try:
        from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    except ImportError as error:
        raise ConfigError(
            f"{source} is an adapter, which needs PEFT ({error}); {install_command('train')}"
        ) from error
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    _check_config(source, settings, LoraConfig().to_dict())
    check_settings(base)
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    auto: Any = AutoModelForImageTextToText if "vision_config" in config.sub_configs else AutoModelForCausalLM
    arguments = source_arguments(str(base))
    with without_kernels():
        model = auto.from_pretrained(**arguments, dtype="auto", use_safetensors=True)
    heads = {"score", "classifier", *(name.partition(".")[0] for name in head)}
    others = [name for name in settings.get("modules_to_save") or () if name not in heads]
    # Without a task, since a task's own class of PEFT adds a head of its own.
    peft_config = LoraConfig(
        **{
            key: value
            for key, value in settings.items()
            if key in READ - {"modules_to_save"} and value is not None
        },
        modules_to_save=others or None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a name of before
        peft_model: Any = get_peft_model(model, peft_config)
    result = set_peft_model_state_dict(
        peft_model, {f"{PREFIX}{name}": tensor for name, tensor in adapter.items()}
    )
    absent = [name for name in result.missing_keys if "lora_" in name or "modules_to_save" in name]
    unread = list(result.unexpected_keys)
    if absent or unread:
        examples = ", ".join([*unread, *absent][:3])
        raise ModelError(
            f"{source}: the adapter does not fit {base}: {len(unread)} of its tensors have no place there, "
            f"{len(absent)} are absent, such as {examples}; name the model that it was trained on by --base"
        )
    return peft_model.merge_and_unload()


def copy_tokenizer(directory: Path, place: Path) -> None:
    """Copy the files of a tokenizer and a processor."""
    for pattern in TOKENIZER_FILES:
        for path in directory.glob(pattern):
            if path.is_file() and path.name not in MODEL_FILES and not path.name.endswith(".index.json"):
                shutil.copyfile(path, place / path.name)
