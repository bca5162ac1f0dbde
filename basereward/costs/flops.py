"""FLOPs of a training step: multiplications and additions of matrix products, 2mnk for [m, n] x [n, k].

All else (norms, activations, softmax, the optimizer) is below a hundredth of them in any large model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from basereward.costs.architecture import ORDER, Architecture
from basereward.forest.forest import Tree
from basereward.prepared import Encoded, Prepared


@dataclass(frozen=True)
class Counts:
    """The amounts that a step's FLOPs and memory are proportional to.

    Args:
        tokens: Tokens, those of images included.
        pairs: Pairs of tokens of which one sees the other, itself included.
        patches: Patches of images.
        patch_pairs: Pairs of patches of the same image.
        window_pairs: Pairs of patches of the same window.
        responses: Rewards.
        frames: Images, frames of videos, or tiles of them, each of which attends to itself alone.
    """

    tokens: float = 0
    pairs: float = 0
    patches: float = 0
    patch_pairs: float = 0
    window_pairs: float = 0
    responses: float = 0
    frames: float = 0

    def __add__(self, other: Counts) -> Counts:
        """Return both together."""
        return Counts(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    def __mul__(self, factor: float) -> Counts:
        """Return so many times as much."""
        return Counts(*(getattr(self, item.name) * factor for item in fields(self)))

    @classmethod
    def of_lengths(
        cls,
        prompt: int,
        responses: Sequence[int],
        grids: Iterable[Sequence[int]] = (),
        *,
        window: int | None = None,
        shared: bool = True,
    ) -> Counts:
        """Count one comparison.

        Args:
            prompt: Tokens of the prompt, those of images included.
            responses: Tokens of each response.
            grids: For each image the patches along time, height and width.
            window: Patches along the side of a window.
            shared: Whether the responses share one copy of the prompt.
        """
        if not shared and len(responses) > 1:
            alone = [cls.of_lengths(prompt, [length], grids, window=window) for length in responses]
            return sum(alone, cls())
        of_responses = sum(length * prompt + _triangle(length) for length in responses)
        side = window or 1
        grids = list(grids)
        return cls(
            tokens=prompt + sum(responses),
            pairs=_triangle(prompt) + of_responses,
            patches=sum(math.prod(grid) for grid in grids),
            # Each frame attends to itself alone.
            patch_pairs=sum(time * (height * width) ** 2 for time, height, width in grids),
            window_pairs=sum(
                time * _squares(height, side) * _squares(width, side) for time, height, width in grids
            ),
            responses=len(responses),
            frames=sum(time for time, _, _ in grids),
        )

    @classmethod
    def of_tree(cls, tree: Tree, *, window: int | None = None, shared: bool = True) -> Counts:
        """Count a comparison in tokens. Images whose patches aren't there, but cached, cost nothing."""
        grids = [
            grid
            for patches, name in _MEDIA.items()
            if patches in tree.media
            for grid in tree.media[name].tolist()
        ]
        lengths = [len(response) for response in tree.responses]
        return cls.of_lengths(len(tree.prompt), lengths, grids, window=window, shared=shared)


_MEDIA = {"pixel_values": "image_grid_thw", "pixel_values_videos": "video_grid_thw"}
"""The media that hold patches, and those that hold the grids that they lie on."""


def _triangle(length: float) -> float:
    return length * (length + 1) / 2


def _squares(length: int, side: int) -> int:
    """Return the sum of the squares of the pieces that a length is cut into."""
    return length // side * side**2 + (length % side) ** 2


@dataclass(frozen=True)
class Flops:
    """FLOPs of a step.

    Args:
        forward: Of the forward pass.
        backward: Of the backward pass: gradients of weights and of inputs.
        recomputed: Of the layers that activation checkpointing computes a second time.
    """

    forward: float
    backward: float
    recomputed: float = 0.0

    @property
    def model(self) -> float:
        """The FLOPs that utilisation (MFU, arXiv 2204.02311) counts: nothing that is computed twice."""
        return self.forward + self.backward

    @property
    def total(self) -> float:
        """All that is computed."""
        return self.model + self.recomputed


def flops(architecture: Architecture, counts: Counts, *, recomputes: bool = False) -> Flops:
    """Return the FLOPs of a training step on comparisons.

    A part that nothing before it trains, and that isn't trained itself, needs no backward pass; one that is
    frozen behind a trained one passes gradients on, which is half of a backward pass.

    Args:
        architecture: The model, with the number of trained weights.
        counts: The amounts to compute.
        recomputes: Whether blocks are computed again in the backward pass.
    """
    has_class_token = architecture.vision is not None and architecture.vision.has_class_token
    positions = {
        "vision": counts.patches + (counts.frames if has_class_token else 0),
        "projector": counts.patches / architecture.patches_per_token,
        "language": counts.tokens,
        "head": counts.responses,
    }
    attention = _attention(architecture, counts)
    forward = backward = recomputed = 0.0
    is_reached = False
    for name in ORDER:
        if name not in architecture.parts:
            continue
        part = architecture.parts[name]
        products = 2 * part.weights * positions[name]
        forward += products + attention.get(name, 0.0)
        is_reached = is_reached or part.trained > 0
        if is_reached:
            passed_on = products - 2 * part.on_pixels * positions[name]
            backward += passed_on + 2 * part.trained * positions[name] + 2 * attention.get(name, 0.0)
            if recomputes and name in attention:
                recomputed += products + attention[name] - _last_products(architecture, name, positions[name])
    return Flops(forward, backward, recomputed)


def _attention(architecture: Architecture, counts: Counts) -> dict[str, float]:
    """Return the FLOPs of queries times keys and of weights times values, by part."""
    language, vision = architecture.language, architecture.vision
    by_part = {"language": 4 * language.query_width * language.number * counts.pairs}
    if vision is not None:
        num_full = vision.num_full if vision.window else vision.number
        pairs = num_full * counts.patch_pairs + (vision.number - num_full) * counts.window_pairs
        if vision.has_class_token:
            pairs += vision.number * (2 * counts.patches + counts.frames)
        by_part["vision"] = 4 * vision.query_width * pairs
    return by_part


def _last_products(architecture: Architecture, name: str, positions: float) -> float:
    """Return the FLOPs of the blocks' last products, which aren't done again: what they give isn't kept."""
    layers = architecture.vision if name == "vision" else architecture.language
    assert layers is not None
    return 2 * layers.number * layers.inner_width * layers.width * positions


class StepFlops:
    """Counts what the steps of a training compute, for its utilisation of the device.

    Args:
        model: The reward model, its frozen parameters frozen and its adapters in place.
    """

    def __init__(self, model: Any) -> None:
        self.architecture = Architecture.of(model)
        self.shared = bool(model.paradigm.share_prompts and model.backbone.shares)

    def __call__(self, prepared: Sequence[Prepared[Any]]) -> float:
        """Return the FLOPs of training on prepared comparisons; 0 where the model's cost isn't known.

        Recomputed layers aren't counted, by the definition of utilisation (MFU).
        """
        encoded = [item.content for item in prepared if isinstance(item.content, Encoded)]
        trees = [item.tree for item in encoded if item.tree is not None]
        if self.architecture is None or len(trees) < len(prepared):
            return 0.0
        window = self.architecture.vision.window if self.architecture.vision else None
        counts = (Counts.of_tree(tree, window=window, shared=self.shared) for tree in trees)
        return flops(self.architecture, sum(counts, Counts())).model
