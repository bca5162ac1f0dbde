"""Import checkpoints of other tools: a model with a scalar head under one of the known names.

Shapes: D width, H width of a hidden layer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from basereward.backbones.template_source import (
    DATE,
    KEEPS_TAIL,
    SKIPS_PADDING,
    chosen_template,
    frozen_template,
    with_note,
)
from basereward.backbones.transformers_model import load_tokenizer
from basereward.backbones.untrusted_settings import check_settings, reading
from basereward.config.conversion import Component, ComponentLike
from basereward.errors import ConfigError, ModelError
from basereward.interop.adapter import merged_checkpoint
from basereward.interop.original_layouts import in_transformers_layout
from basereward.paradigms.judge_template import JudgeTemplate
from basereward.scoring.reward_model import RewardModel
from basereward.storage.hub import fetch_hint
from basereward.storage.model_directory import copy_tensor
from basereward.storage.reading import read_json

BACKBONES = {
    "qwen2_vl": "qwen-vl",
    "qwen2_5_vl": "qwen-vl",
    "qwen3_vl": "qwen-vl",
    "internvl": "internvl",
    "llava_onevision": "llava-onevision",
}
"""The backbone of each model type; text models are `causal-lm`."""

PARADIGMS = {"rating": "pointwise", "rubric": "pointwise", "choice": "listwise"}
"""The paradigm of judge templates by their answer, where it isn't `generative`."""

BIN = ("value_head.bin", "pytorch_model.bin")
"""Pickled files that may hold a head; unpickling can run code unless only tensors are allowed."""


class Layout(NamedTuple):
    """The names of a head's tensors.

    Args:
        title: The tools that write it.
        layers: (weight, bias) of each layer, first to last; a bias may be missing.
        activation: The activation between layers.
        skips_padding: Whether these tools read the last token that is no padding by its id, so that they pass
            over a padding token that ends a text; else they read the last token by its place.
    """

    title: str
    layers: tuple[tuple[str, str], ...]
    activation: str = "none"
    skips_padding: bool = False


LAYOUTS = (
    Layout(
        "TRL's value head, as LLaMA-Factory and Skywork-VL-Reward have it",
        (("v_head.summary.weight", "v_head.summary.bias"),),
    ),
    Layout(
        "transformers, TRL's RewardTrainer and ms-swift",
        (("score.weight", "score.bias"),),
        skips_padding=True,
    ),
    Layout("vLLM's vision-language models", (("language_model.score.weight", "language_model.score.bias"),)),
    Layout("InternLM2-Reward", (("v_head.weight", "v_head.bias"),)),
    Layout(
        "MM-RLHF",
        (
            ("rm_head.dense.weight", "rm_head.dense.bias"),
            ("rm_head.out_proj.weight", "rm_head.out_proj.bias"),
        ),
        "tanh",
    ),
)


def import_model(
    source: str | Path,
    directory: str | Path,
    *,
    base: str | Path | None = None,
    backbone: str | None = None,
    read_bin: bool = False,
    template: str | None = None,
    paradigm: ComponentLike | None = None,
    **options: Any,
) -> tuple[RewardModel, Layout]:
    """Write a checkpoint of another tool as a model directory, and return the model and its head's layout.

    InternVL and LLaVA-OneVision are read in the layouts of their authors, too.

    Rewards are read where these tools read them: at the last token that the chat template writes, or where
    they find it by the padding token's id, at the last that is no padding.

    Args:
        source: A directory with a transformers model and its head, or with an adapter and a head.
        directory: The directory to write.
        base: The directory of the model that an adapter was trained on.
        backbone: The name of the backbone; None for that of the model's type.
        read_bin: Whether heads in pickled files are read, tensors only.
        template: The chat template; None for the tokenizer's own.
        paradigm: The paradigm that reads the head, such as a critic's; None for `scalar`.
        options: Options of the backbone.

    Raises:
        ConfigError: When there is no head of a known layout, or several, or no chat template; or transformers
            has not the architecture.
        ModelError: When a tensor is missing, misshapen or not finite.
    """
    names = {name for layout in LAYOUTS for pair in layout.layers for name in pair}
    with (
        in_transformers_layout(Path(source)) as place,
        merged_checkpoint(place, base, names) as whole,
    ):
        model, layout = _imported(whole, backbone, read_bin, template, paradigm, options)
        origin = (
            {"base_model": str(source)} if base is None else {"base_model": str(base), "adapter": str(source)}
        )
        model.record |= {**origin, "imported_from": layout.title}
        model.save(directory)
    return RewardModel.load(directory), layout


def import_judge(
    source: str | Path,
    directory: str | Path,
    *,
    paradigm: Mapping[str, Any] | None = None,
    backbone: str | None = None,
    **options: Any,
) -> RewardModel:
    """Write a language model that judges, such as R1-Reward or UnifiedReward, as a model directory.

    The paradigm is the one that the template's answer is for: `generative` for verdicts on pairs, `pointwise`
    for ratings and rubrics, `listwise` for a choice among all.

    Args:
        source: A directory with a transformers model and its language-model head.
        directory: The directory to write.
        paradigm: Options of the paradigm, such as the judge template; `reasoned` where there is none.
        backbone: The name of the backbone; None for that of the model's type.
        options: Options of the backbone.

    Raises:
        ConfigError: When the directory holds no transformers model.
        ModelError: When a tensor is missing or misshapen.
    """
    settings = {"template": "reasoned", **(paradigm or {})}
    answer = JudgeTemplate.load(settings["template"]).answer
    with in_transformers_layout(Path(source)) as place:
        _check_source(place)
        model = RewardModel.build(
            backbone=Component(backbone or backbone_of(place), {"model": str(place), **options}),
            paradigm=Component(PARADIGMS.get(answer, "generative"), settings),
        )
        model.record |= {"base_model": str(source), "imported_from": "a language model that judges"}
        model.save(directory)
    return RewardModel.load(directory)


def _check_source(source: Path) -> None:
    if not os.path.lexists(source / "config.json"):
        raise ConfigError(
            f"{source} is no directory of a transformers model: it has no config.json{fetch_hint(source)}"
        )
    check_settings(source)


def _imported(
    source: Path,
    backbone: str | None,
    read_bin: bool,
    template: str | None,
    paradigm: ComponentLike | None,
    options: Mapping[str, Any],
) -> tuple[RewardModel, Layout]:
    """Return the model of a whole checkpoint, and its head's layout."""
    _check_source(source)
    layout, tensors = _head_of(source, read_bin)
    if template is None and chosen_template(load_tokenizer(str(source)).chat_template) is None:
        raise ConfigError(
            f"{source} has no chat template, so that the form of its training texts isn't known; give one by "
            "--chat-template FILE. For plain texts of prompt and response it is "
            "{% for message in messages %}{{ message['content'] }}{% endfor %}{{ eos_token }}"
        )
    name = backbone or backbone_of(source)
    weights = [tensors[weight] for weight, _ in layout.layers]
    if any(weight.ndim != 2 for weight in weights) or weights[-1].shape[0] != 1:
        shapes = ", ".join(str(list(weight.shape)) for weight in weights)
        raise ModelError(f"{source}: a head gives one number; the shapes of its layers are {shapes}")
    width = weights[0].shape[0] if len(weights) > 1 else None
    head = {"num_layers": len(weights), "activation": layout.activation, "width": width}
    model = RewardModel.build(
        backbone=Component(name, {"model": str(source), **options}),
        head=Component("linear", {}) if len(weights) == 1 else Component("mlp", head),
        paradigm=paradigm,
        fresh_head=True,  # which is filled below
    )
    _fill(model.head, layout, tensors, source)
    transformers_backbone: Any = model.backbone
    if template is None:
        template = transformers_backbone.chat.template
    template = frozen_template(template, options.get("template_date", DATE))
    transformers_backbone.use_template(with_note(template, KEEPS_TAIL))
    if layout.skips_padding:
        _skip_padding(transformers_backbone)
    return model, layout


def _skip_padding(backbone: Any) -> None:
    """Have rewards read before padding tokens that end a response, as transformers reads them."""
    pad = backbone.model.config.get_text_config().pad_token_id
    if pad is None or backbone.chat.end_ids[-1:] != [pad]:
        return
    backbone.pad = pad
    backbone.tokenizer.pad_token = backbone.tokenizer.convert_ids_to_tokens(pad)
    backbone.use_template(with_note(backbone.chat.template, SKIPS_PADDING))


def _head_of(source: Path, read_bin: bool) -> tuple[Layout, dict[str, Tensor]]:
    names = {name for layout in LAYOUTS for pair in layout.layers for name in pair}
    tensors = dict(_tensors(source, names, read_bin))
    layouts = [layout for layout in LAYOUTS if all(weight in tensors for weight, _ in layout.layers)]
    if len(layouts) > 1:
        raise ConfigError(f"{source} has heads of {' and of '.join(layout.title for layout in layouts)}")
    if not layouts:
        pickled = [name for name in BIN if (source / name).is_file()]
        hint = f"; {pickled[0]} may hold one, which --read-bin reads" if pickled and not read_bin else ""
        wanted = ", ".join(layout.layers[0][0] for layout in LAYOUTS)
        raise ConfigError(f"{source} has no head of a known layout ({wanted}){hint}")
    return layouts[0], tensors


def _tensors(source: Path, names: set[str], read_bin: bool) -> Iterator[tuple[str, Tensor]]:
    opened: Any
    for path in sorted(source.glob("*.safetensors")):
        with reading(path), safe_open(path, framework="pt") as opened:
            for name in names.intersection(opened.keys()):
                yield name, opened.get_tensor(name)
    for path in [source / name for name in BIN] if read_bin else []:
        if path.is_file():
            with reading(path):
                loaded: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
                yield from ((name, loaded[name]) for name in names.intersection(loaded))


def backbone_of(source: Path) -> str:
    """Return the name of the backbone that reads a transformers model.

    Raises:
        ConfigError: When there is none.
    """
    config = read_json(source / "config.json")
    kind = str(config.get("model_type", ""))
    if kind in BACKBONES:
        return BACKBONES[kind]
    if "vision_config" in config:
        raise ConfigError(
            f"{source} is a {kind!r} model, which no backbone here reads; name one by --backbone"
        )
    return "causal-lm"


def _fill(head: Any, layout: Layout, tensors: Mapping[str, Tensor], source: Path) -> None:
    with torch.no_grad():
        for layer, (weight, bias) in zip(head.layers, layout.layers, strict=True):
            values = {weight: layer.weight, bias: layer.bias}
            for name, target in values.items():
                tensor = tensors.get(name)
                if tensor is None:
                    target.zero_()  # these tools have heads without bias
                    continue
                copy_tensor(tensor, target, f"{source}: {name}")
