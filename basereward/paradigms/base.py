"""The base of paradigms that encode comparisons as trees and batch them as a forest."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from basereward import protocols
from basereward.comparison import Comparison
from basereward.forest.forest import Forest, Tree
from basereward.losses import LossOutput
from basereward.prepared import Prepared, Size


class Paradigm(protocols.Paradigm, nn.Module, abc.ABC):
    """Base of paradigms; a subclass gives `prepare`, `loss_of` and `score_of`."""

    @abc.abstractmethod
    def prepare(self, comparison: Comparison) -> Prepared[Any]:
        """Do what the CPU can do ahead: open images, tokenize.

        Raises:
            DataError: When the comparison can't be encoded.
        """

    @abc.abstractmethod
    def loss_of(self, batch: Sequence[Prepared[Any]]) -> LossOutput:
        """Return the loss of prepared comparisons."""

    @abc.abstractmethod
    def score_of(self, batch: Sequence[Prepared[Any]]) -> Tensor:
        """Return the rewards [N] of prepared comparisons, in their order."""

    @property
    def pads(self) -> bool:
        """Whether each comparison has a row of its own in a batch, as long as the longest."""
        return not self.backbone.packs

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.backbone.parameters()).device

    def size_of(self, tree: Tree, *, shared: bool = True, num_more: int = 0) -> Size:
        """Return the size of a tree in a forest, with tokens that are appended to its branches."""
        num_prompts = 1 if shared and self.backbone.shares else len(tree.responses)
        num_tokens = len(tree) + (num_prompts - 1) * len(tree.prompt) + num_more
        return Size(num_tokens, num_prompts * tree.num_patches)

    def packed(self, trees: Sequence[Tree], *, shared: bool = True) -> Forest:
        """Return trees as a forest where the weights are; in one row, where the backbone packs."""
        row_tokens = math.inf if self.backbone.packs else None
        return self.backbone.pack(trees, shared=shared, row_tokens=row_tokens).to(self.device)
