"""A reward model as a checkpoint that transformers, TRL and vLLM read.

A linear head goes on a plain model of transformers; a head of several layers needs a class of ours.

Shapes: D width.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from basereward._version import __version__
from basereward.backbones.template_source import KEEPS_TAIL, SKIPS_PADDING
from basereward.backbones.transformers_backbone import TransformersBackbone
from basereward.errors import ConfigError
from basereward.heads import MLP
from basereward.interop.dense_modules import write_dense_modules
from basereward.paradigms.scalar import Scalar
from basereward.scoring.reward_model import RewardModel
from basereward.storage.atomic import file_names, replace_directory
from basereward.storage.reading import read_json

Format = Literal["hf", "vllm"]

MARK_FILE = "basereward_export.json"
"""The file that tells an export, which another may replace, from other models; it lists the files."""

LABELS: dict[str, Any] = {
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
    "problem_type": "regression",
}

REGISTERED = "RewardForSequenceClassification"
"""The class of ours for heads of several layers."""

LOADING = (
    "from transformers import AutoModelForSequenceClassification",
    "from basereward.interop.sequence_classifier import register  # pip install basereward",
    "",
    "register()",
    'model = AutoModelForSequenceClassification.from_pretrained(".")',
)

EMBEDDED = {"pooling_type": "LAST", "use_activation": False}
"""vLLM's settings of an embedding: read at the last token, and not normalized."""

STRIPPED = (
    "{% set basereward_text %}\nTEMPLATE{% endset %}"
    "{{ basereward_text if add_generation_prompt else basereward_text.rstrip() }}"
)
"""A template that leaves out the text after the end of the last turn, where rewards are not read. The line
break goes with the block's end, so that the template begins a line as it did."""


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Args:
        architecture: The class that reads the checkpoint.
        offset: The difference of the reward and its logit, since its head has no bias.
    """

    architecture: str
    offset: float


def export_model(model: RewardModel, directory: str | Path, format: Format = "hf") -> Exported:
    """Write a reward model as `XForSequenceClassification`, whose only logit is the reward.

    The chat template is written such that its text ends where the reward is read. The padding token is one
    that no response ends with, since transformers reads the last token that is no padding.

    Args:
        model: Of the paradigm scalar, with a head that reads the last layer at a response's last token.
        directory: The directory to write; an earlier export is replaced.
        format: `hf` puts the head where transformers looks for it, `vllm` where vLLM does; they differ for
            vision-language models. A head with an activation becomes for `hf` a
            `RewardForSequenceClassification`, for which `interop.sequence_classifier.register` is called
            before it is loaded, and for `vllm` the dense layers of an embedding of one number.

    Raises:
        ConfigError: When such a checkpoint can't hold the model, or the directory holds something else.
    """
    if format not in get_args(Format):
        raise ConfigError(f"format is one of {', '.join(get_args(Format))}, not {format!r}")
    if type(model.paradigm) is not Scalar:
        raise ConfigError(
            f"a checkpoint of other tools scores a response by itself; the paradigm "
            f"{model.components['paradigm']['name']!r} doesn't"
        )
    backbone = model.backbone
    if not isinstance(backbone, TransformersBackbone):
        raise ConfigError(f"the backbone {model.components['backbone']['name']!r} is no transformers model")
    if not is_linear(model.head):
        export = _export_layers if format == "hf" else _export_dense
        return export(model, backbone, Path(directory))
    weight, bias = linear_of(model.head)
    inner = backbone.model
    name = type(inner).__name__.removesuffix("Model") + "ForSequenceClassification"
    with replace_directory(Path(directory), foreign_files=foreign_files) as place:
        backbone.save(place)
        _finish(place, backbone, Exported(name, bias), format)
        has_vision = "text_config" in inner.config.sub_configs
        prefix = "language_model." if format == "vllm" and has_vision else ""
        _add_head(place, f"{prefix}score.weight", weight.to(next(inner.parameters()).dtype))
        if not has_vision:
            prefix_backbone(place, inner.base_model_prefix)
        mark_export(place, Exported(name, bias), format)
    return Exported(name, bias)


def _export_layers(model: RewardModel, backbone: TransformersBackbone, directory: Path) -> Exported:
    """Write a model whose head has an activation, as the class of `interop.sequence_classifier`."""
    from basereward.interop.sequence_classifier import RewardConfig, RewardForSequenceClassification

    head: Any = model.head
    _check_place(head)
    options = {
        "num_layers": len(head.layers),
        "activation": head.activation_name,
        "width": head.layers[0].out_features,
    }
    config = deepcopy(backbone.model.config)  # making a model sets the attention in the config itself
    with torch.device("meta"):
        classifier = RewardForSequenceClassification(RewardConfig(config, options))
    classifier.model, classifier.score["layers"] = backbone.model, head.layers
    exported = Exported(REGISTERED, 0.0)
    with replace_directory(directory, foreign_files=foreign_files) as place:
        backbone.save(place)
        for path in place.glob("*.safetensors*"):  # under the backbone's names, which are not the class's
            path.unlink()
        classifier.save_pretrained(place)
        _finish(place, backbone, exported, "hf")
        mark_export(place, exported, "hf")
    return exported


def _export_dense(model: RewardModel, backbone: TransformersBackbone, directory: Path) -> Exported:
    """Write a model whose head has an activation, as an embedding model of one dimension for vLLM."""
    _check_place(model.head)
    inner = backbone.model
    has_vision = "text_config" in inner.config.sub_configs
    suffix = "ForConditionalGeneration" if has_vision else "ForCausalLM"
    exported = Exported(type(inner).__name__.removesuffix("Model") + suffix, 0.0)
    with replace_directory(directory, foreign_files=foreign_files) as place:
        backbone.save(place)
        _finish(place, backbone, exported, "vllm")
        if not has_vision:
            prefix_backbone(place, inner.base_model_prefix)
        write_dense_modules(place, model.head)
        mark_export(place, exported, "vllm")
    return exported


def is_linear(head: Any) -> bool:
    """Tell whether a head has no activation between its layers."""
    return not isinstance(head, MLP) or len(head.layers) == 1 or head.activation_name == "none"


def _check_place(head: Any) -> None:
    if not isinstance(head, MLP) or head.pooling != "last" or head.reads_layer is not None:
        raise ConfigError(
            "a checkpoint of other tools reads the last layer at a response's last token; the head is "
            f"{type(head).__name__} with other settings"
        )


def linear_of(head: Any) -> tuple[Tensor, float]:  # [1, D]
    """Return the weight and bias of a head without activations.

    Raises:
        ConfigError: When it doesn't read the last layer at a response's end.
    """
    _check_place(head)
    assert is_linear(head)
    layers: list[Any] = list(head.layers)
    weight, bias = layers[0].weight.detach().double(), layers[0].bias.detach().double()
    for layer in layers[1:]:
        weight = layer.weight.detach().double() @ weight
        bias = layer.weight.detach().double() @ bias + layer.bias.detach().double()
    return weight.float(), float(bias)


def foreign_files(directory: Path) -> set[str]:
    """Return the files of a directory that its mark, if it has one, does not list."""
    names = file_names(directory)
    try:
        mark = read_json(directory / MARK_FILE)
    except (OSError, ValueError):
        return names
    files = mark.get("files") if isinstance(mark, dict) else None
    return (
        {name for name in names if name != MARK_FILE and name not in files}
        if isinstance(files, list)
        else names
    )


def mark_export(place: Path, exported: Exported, format: str) -> None:
    """Write the mark, which lists the other files, last."""
    mark = {
        "basereward_version": __version__,
        "format": format,
        "offset": exported.offset,
        "files": sorted(file_names(place)),
    }
    (place / MARK_FILE).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")


def _finish(place: Path, backbone: TransformersBackbone, exported: Exported, format: Format) -> None:
    """Write the config, the tokenizer and the README of a checkpoint with a head."""
    tokenizer = backbone.tokenizer
    pad = tokenizer.pad_token_id
    end = backbone.chat.end_ids[-1:]
    # A model that is read before padding is read so by transformers too, if the same token pads.
    if [pad] == end and SKIPS_PADDING not in backbone.chat.template:
        others = [number for number in sorted(backbone.control_ids()) if [number] != end]
        if not others:
            raise ConfigError("the tokenizer has no token for padding that no response ends with")
        pad = others[0]
    path = place / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"architectures": [exported.architecture], "pad_token_id": pad, **LABELS}
    if "text_config" in config:
        config["text_config"] |= {"pad_token_id": pad, **LABELS}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    template, token = tokenizer.chat_template, tokenizer.pad_token
    try:
        if KEEPS_TAIL not in backbone.chat.template:
            # Jinja leaves out a line break at the end of a template, but not of a block.
            text = backbone.chat.template.removesuffix("\n")
            tokenizer.chat_template = STRIPPED.replace("TEMPLATE", text)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
        tokenizer.save_pretrained(place)
    finally:
        tokenizer.chat_template, tokenizer.pad_token = template, token
    (place / "README.md").write_text(_card(exported, format), encoding="utf-8")


def _add_head(place: Path, name: str, weight: Tensor) -> None:
    """Add the head's weight to the model's file, or as a file of its own where the model is sharded."""
    index = place / "model.safetensors.index.json"
    if not index.is_file():
        path = place / "model.safetensors"
        save_file({**load_file(path), name: weight.contiguous()}, path, metadata={"format": "pt"})
        return
    save_file({name: weight.contiguous()}, place / "model-score.safetensors", metadata={"format": "pt"})
    table = json.loads(index.read_text(encoding="utf-8"))
    table["weight_map"][name] = "model-score.safetensors"
    table["metadata"]["total_size"] = table["metadata"].get("total_size", 0) + weight.nbytes
    index.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def prefix_backbone(place: Path, prefix: str) -> None:
    """Prefix the names of a text model's tensors, as its class with a head expects them."""

    def renamed(name: str) -> str:
        return name if name.startswith(("score.", f"{prefix}.")) else f"{prefix}.{name}"

    for path in place.glob("*.safetensors"):
        tensors = {renamed(name): value for name, value in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    index = place / "model.safetensors.index.json"
    if index.is_file():
        table = json.loads(index.read_text(encoding="utf-8"))
        table["weight_map"] = {renamed(name): file for name, file in table["weight_map"].items()}
        index.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def _card(exported: Exported, format: Format) -> str:
    architecture, offset = exported.architecture, exported.offset
    is_embedding = not architecture.endswith("ForSequenceClassification")
    number = "embedding dimension" if is_embedding else "logit"
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "tags: [reward-model, basereward]",
        "---",
        "",
        f"A reward model, exported by BaseReward as `{architecture}`: its only {number} is the reward"
        + (f", less {offset:.9g}." if offset else "."),
        "Read it at the end of the text that the chat template makes of the conversation.",
    ]
    if architecture == REGISTERED:
        lines += ["", "```python", *LOADING, "```"]
    if is_embedding:
        lines += [
            "",
            "```bash",
            f"vllm serve . --runner pooling --convert embed --pooler-config '{json.dumps(EMBEDDED)}'",
            "```",
            "",
            "`/v1/embeddings` gives the reward as an embedding of one number. vLLM passes over a layer of",
            "the head that it can't read and logs that alone: check that an embedding has one number.",
        ]
    elif format == "vllm":
        pooler = json.dumps({"pooling_type": "LAST", "use_activation": False, "logit_mean": -offset})
        lines += [
            "",
            "```bash",
            f"vllm serve . --runner pooling --convert classify --pooler-config '{pooler}'",
            "```",
        ]
    return "\n".join(lines) + "\n"
