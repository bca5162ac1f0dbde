"""The projector's start: a linear map from images to the embeddings of their names.

Large vision-language models train their projector alone on captions before anything else. Here that stage
takes seconds, and spares the decoder most of its training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from basereward.backbones.feature_cache import FeatureCache
from basereward.reporting.progress import progress_bar
from basereward_mini.backbone import MiniVLM
from basereward_mini.openmoji import Drawing, image, split_of

RIDGE = 10_000.0
"""Ridge penalty a view, for standardised features; chosen on images held out of the training split."""


Fit = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From features [n, views, channels] and embeddings [n, D] to a weight [channels, D] and a bias [D]."""


def save_aligned(
    directory: Path, *, cache: Path | None = None, fit: Fit | None = None, **options: int | float
) -> Path:
    """Build a `mini-vlm`, align its projector on the training split, and save it as a `model`.

    Args:
        directory: Where the model is saved.
        cache: Where the features of images are kept for later runs; None for nowhere.
        fit: Fits the projector; None for a ridge regression.
        options: Of the backbone.
    """
    backbone = MiniVLM(**options).train()  # in training mode an image comes in all its views
    drawings = split_of("train")
    with nullcontext() if cache is None else FeatureCache(cache) as features_on_disk:
        if features_on_disk is not None:
            backbone.attach_feature_cache(features_on_disk, "weights")
        features = _features(backbone, drawings)
    names = torch.stack([_embedding(backbone, drawing.name) for drawing in drawings])
    weight, bias = ridge(features, names, RIDGE) if fit is None else fit(features, names)
    linear = backbone.projector[1]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight.copy_(weight.T)
        linear.bias.copy_(bias)
    directory.mkdir(parents=True, exist_ok=True)
    backbone.save(directory)
    return directory


def ridge(
    features: Tensor,  # [n, views, channels]
    targets: Tensor,  # [n, D]
    penalty: float,
) -> tuple[Tensor, Tensor]:  # [channels, D], [D]
    """Regress targets on standardised features, and stretch what comes out to the spread of the targets.

    Unstretched, a ridge regression of this strength predicts little but the mean, which tells nothing.
    """
    mean, std = features.mean((0, 1)), features.std((0, 1)) + 1e-3
    target_mean, target_std = targets.mean(0), targets.std(0)
    inputs = ((features - mean) / std).flatten(0, 1)  # [n * views, channels]
    outputs = ((targets - target_mean) / target_std).repeat_interleave(features.shape[1], dim=0)
    identity = torch.eye(inputs.shape[1])
    weight = torch.linalg.solve(
        inputs.T @ inputs + penalty * features.shape[1] * identity, inputs.T @ outputs
    )
    return stretched(weight, features, targets)


def stretched(
    weight: Tensor,  # [channels, D]
    features: Tensor,  # [n, views, channels]
    targets: Tensor,  # [n, D]
) -> tuple[Tensor, Tensor]:  # [channels, D], [D]
    """Turn a weight of standardised features into one of features as they are, and a bias.

    The outputs get the mean and the spread of the targets.
    """
    mean, std = features.mean((0, 1)), features.std((0, 1)) + 1e-3
    outputs = ((features - mean) / std).flatten(0, 1) @ weight  # [n * views, D]
    weight = weight / outputs.std(0).clamp(min=1e-3) * targets.std(0) / std[:, None]
    return weight, targets.mean(0) - mean @ weight


def _features(backbone: MiniVLM, drawings: Sequence[Drawing]) -> Tensor:  # [n, views, channels]
    """Return the mean over the grid of each view, as the projector's linear layer sees it."""
    normalize = backbone.projector[0]

    @torch.no_grad()  # which holds in one thread
    def features_of(drawing: Drawing) -> Tensor:  # [views, channels]
        views = backbone.views_of(image(drawing.emoji), backbone.num_views)
        return torch.as_tensor(normalize(views.float()).mean(1))

    rows = []
    # The convolutions of one image are too small to keep several cores at work.
    with (
        progress_bar("reading images", len(drawings)) as advance,
        ThreadPoolExecutor(torch.get_num_threads()) as threads,
    ):
        for row in threads.map(features_of, drawings):
            rows.append(row)
            advance()
    return torch.stack(rows)


def _embedding(backbone: MiniVLM, name: str) -> Tensor:  # [D]
    ids = torch.tensor(backbone.chat.text_ids(name, "name"))
    return backbone.model.embed_tokens.weight[ids].mean(0).detach()
