"""The facts of a model that its cost follows from: matrices of each part, widths of its layers.

Shapes: D width of the hidden states, I width within the MLP.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from basereward.backbones.internvl import InternVL
from basereward.backbones.transformers_backbone import TransformersBackbone

ORDER = ("vision", "projector", "language", "head")
"""The parts in the order in which a forward pass goes through them."""


class Matrices(NamedTuple):
    """The number of weights that each position of a part is multiplied with.

    Args:
        weights: Elements of its matrices; of experts those that a token goes through.
        trained: Those of them that get a gradient.
        on_pixels: Those of them that pixels are multiplied with, for which no gradient is wanted.
    """

    weights: int
    trained: int
    on_pixels: int = 0


@dataclass(frozen=True)
class Layers:
    """The equal blocks of a decoder or a vision tower.

    Args:
        number: How many there are.
        width: D.
        num_heads: Heads of queries.
        query_width: Of all heads' queries together.
        key_width: Of all heads' keys together; values are as wide.
        inner_width: I; with experts, of those together that a token goes through.
        is_gated: Whether the MLP multiplies two projections.
        has_plain_norm: Whether norms are made of single operations, each of which keeps what it needs.
        norms_heads: Whether queries and keys are normed too.
        window: Patches along the side of a window that attention stays in; None for no windows.
        num_full: Blocks that attend over whole images all the same.
        has_class_token: Whether an image, or a tile of it, has one more position than patches.
    """

    number: int
    width: int
    num_heads: int
    query_width: int
    key_width: int
    inner_width: int
    is_gated: bool = True
    has_plain_norm: bool = True
    norms_heads: bool = False
    window: int | None = None
    num_full: int = 0
    has_class_token: bool = False


@dataclass(frozen=True)
class Architecture:
    """The facts that FLOPs and memory follow from.

    Args:
        parts: The matrices of each part.
        language: The decoder's layers.
        vision: The tower's blocks; None for a model of texts.
        patches_per_token: Patches of an image that are merged into one token.
        vocabulary: Tokens that a language-model head would have to tell apart.
    """

    parts: dict[str, Matrices]
    language: Layers
    vision: Layers | None = None
    patches_per_token: int = 1
    vocabulary: int = 0

    @classmethod
    def of(cls, model: Any) -> Architecture | None:
        """Read the facts off a reward model, its frozen parameters frozen, weights or no weights.

        Returns:
            None for a backbone of another structure than a decoder of transformers, Qwen-VL or InternVL.
        """
        backbone = model.backbone
        if not isinstance(backbone, TransformersBackbone):
            return None
        core, decoder = backbone.model, backbone.decoder.decoder
        config = core.config
        text = config.get_text_config()
        vision, merged = None, 1
        if isinstance(backbone, InternVL):
            vision = _tile_layers(config.vision_config)
            merged = round(1 / config.downsample_ratio) ** 2
        elif tower := _first(core, "visual"):
            vision = _vision_layers(config.vision_config, tower)
            merged = config.vision_config.spatial_merge_size**2
        elif core is not decoder:
            return None
        share = _active_share(text)
        counted: set[Tensor] = {
            parameter for parameters in model.part_parameters().values() for parameter in parameters
        }
        modules = {name: [module] for name, module in backbone.parts().items()}
        modules["head"] = [module for name, module in model.paradigm.named_children() if name != "backbone"]
        parts = {name: _matrices(part, counted, share) for name, part in modules.items()}
        return cls(
            parts={name: parts[name] for name in ORDER if name in parts},
            language=_text_layers(text, decoder),
            vision=vision,
            patches_per_token=merged,
            vocabulary=text.vocab_size,
        )


def _first(holder: Any, *names: str) -> Any:
    """Return the first of some attributes of a transformers configuration or model, or None.

    Its architectures share no interface: each has attributes, and names for them, that others lack.
    """
    return next((value for name in names if (value := getattr(holder, name, None)) is not None), None)


def _text_layers(config: Any, decoder: nn.Module) -> Layers:
    heads = config.num_attention_heads
    head_width = _first(config, "head_dim") or config.hidden_size // heads
    experts = _first(config, "num_experts_per_tok")
    names = {name.rpartition(".")[2] for name, _ in decoder.named_modules()}
    return Layers(
        number=config.num_hidden_layers,
        width=config.hidden_size,
        num_heads=heads,
        query_width=heads * head_width,
        key_width=(_first(config, "num_key_value_heads") or heads) * head_width,
        inner_width=experts * config.moe_intermediate_size if experts else config.intermediate_size,
        is_gated=bool(names & {"gate_proj", "gate_up_proj", "experts"}),
        norms_heads="q_norm" in names,
    )


def _vision_layers(config: Any, tower: Any) -> Layers:
    # In Qwen2-VL the tower's width is embed_dim, and hidden_size is that of the merger's output.
    width = _first(config, "embed_dim", "hidden_size")
    ratio = _first(config, "mlp_ratio")
    side = _first(config, "window_size")
    block = tower.blocks[0]
    return Layers(
        number=len(tower.blocks),
        width=width,
        num_heads=_first(config, "num_heads", "num_attention_heads"),
        query_width=width,
        key_width=width,
        inner_width=int(ratio * width) if ratio else config.intermediate_size,
        is_gated=_first(block.mlp, "gate_proj") is not None,
        has_plain_norm=not isinstance(block.norm1, nn.LayerNorm),
        window=side // config.patch_size if side else None,
        num_full=len(_first(config, "fullatt_block_indexes") or ()),
    )


def _tile_layers(config: Any) -> Layers:
    """Return the blocks of InternVL's tower, which sees an image in tiles that all are of one size."""
    return Layers(
        number=config.num_hidden_layers,
        width=config.hidden_size,
        num_heads=config.num_attention_heads,
        query_width=config.hidden_size,
        key_width=config.hidden_size,
        inner_width=config.intermediate_size,
        is_gated=False,
        has_plain_norm=config.norm_type == "rms_norm",
        norms_heads=config.use_qk_norm,
        has_class_token=True,
    )


def _active_share(config: Any) -> float:
    """Return the share of the experts' weights that a token goes through."""
    number = _first(config, "num_local_experts", "num_experts")
    return config.num_experts_per_tok / number if number else 1.0


def _matrices(modules: list[nn.Module], counted: set[Tensor], share: float) -> Matrices:
    weights = trained = on_pixels = 0
    for number, parameter in _weights(modules):
        if parameter not in counted:
            continue
        if parameter.ndim == 3:  # experts, one after the other
            number = round(number * share)
        weights += number
        trained += number if parameter.requires_grad else 0
        on_pixels += number if parameter.ndim > 3 else 0  # a convolution over patches
    return Matrices(weights, trained, on_pixels)


def _weights(modules: list[nn.Module]) -> Iterator[tuple[int, Tensor]]:
    """Yield the weights of matrix products, and their sizes: no embeddings, whose rows are looked up."""
    for root in modules:
        for module in root.modules():
            if isinstance(module, nn.Linear):  # quantized ones hold several weights in an element
                yield module.in_features * module.out_features, module.weight
            elif not isinstance(module, nn.Embedding):
                for parameter in module.parameters(recurse=False):
                    # [1, positions, D] is added to every image: positions, a class token.
                    if parameter.ndim >= 2 and not (parameter.ndim == 3 and parameter.shape[0] == 1):
                        yield parameter.numel(), parameter
