"""A projector's start by contrast: each image is to lie nearest to its own name among those of a batch.

Takes some seconds more than the ridge regression of `alignment`, and orders more names of unseen images
rightly. Images are few and channels many, so most of an image's features are dropped in each step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from basereward_mini.alignment import stretched

NUM_STEPS, BATCH_SIZE, LR = 150, 512, 3e-3
DROPOUT = 0.85
TEMPERATURE = 0.05
"""At the start; it is learned."""


def contrastive(
    features: Tensor,  # [n, views, channels]
    targets: Tensor,  # [n, D]
    *,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:  # [channels, D], [D]
    """Fit a linear map from images to the embeddings of their names by the symmetric loss of CLIP.

    Both sides are standardised and compared by their cosine; a step takes one view of each of its images.
    The outputs are stretched to the spread of the targets, which the decoder expects of words. Source:
    arXiv 2103.00020, figure 3.
    """
    chance = torch.Generator().manual_seed(seed)
    inputs = (features - features.mean((0, 1))) / (features.std((0, 1)) + 1e-3)
    names = functional.normalize((targets - targets.mean(0)) / targets.std(0), dim=-1)
    weight = torch.empty(features.shape[-1], targets.shape[-1]).normal_(std=0.01, generator=chance)
    log_scale = torch.tensor(1 / TEMPERATURE).log()
    groups = [{"params": [weight], "weight_decay": 0.1}, {"params": [log_scale], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR)
    for parameter in (weight, log_scale):
        parameter.requires_grad_(True)
    for step in range(NUM_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = LR * (1 - step / NUM_STEPS)
        rows = torch.randperm(len(inputs), generator=chance)[:BATCH_SIZE]
        view = torch.randint(inputs.shape[1], (len(rows),), generator=chance)
        shown = inputs[rows, view]  # [b, channels]
        kept = torch.rand(shown.shape, generator=chance) >= DROPOUT
        images = functional.normalize((shown * kept) @ weight, dim=-1)  # [b, D]
        logits = images @ names[rows].T * log_scale.exp()  # [b, b]
        own = torch.arange(len(rows))
        loss = functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return stretched(weight.detach(), features, targets)
