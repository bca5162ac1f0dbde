"""The scalar paradigm: a head gives each response one number (the "Naive-RM" of arXiv 2509.16127)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from basereward.backbones.feature_cache import FeatureCache
from basereward.comparison import Comparison
from basereward.forest.forest import Forest, Tree
from basereward.losses import LossOutput, Targets, apply_loss
from basereward.paradigms.base import Paradigm
from basereward.paradigms.end_state_cache import Ends, EndStateCache, joined
from basereward.prepared import Encoded, Prepared, Size
from basereward.protocols import Backbone, Head, Loss


@dataclass(frozen=True)
class Cached(Encoded):
    """A comparison whose hidden states are cached, or will be.

    Args:
        tree: Its tokens; None where the states are cached.
        key: The key in the cache.
        ends: The cached states; None where they are still to be computed.
    """

    key: str
    ends: Ends | None


REPLACED = {
    "shares_backbone": {"hidden_states", "score_of"},
    "uses_all_weights": {"hidden_states", "rewards_of", "loss_of"},
    "shares_prefix": {"hidden_states", "rewards_of", "score_of"},
}
"""Capabilities of `Scalar`, and the methods that they depend on."""


class Scalar(Paradigm):
    """Backbone, head, and a loss on the head's rewards.

    Args:
        backbone: Makes hidden states of comparisons.
        head: Makes rewards of hidden states.
        loss: Compares rewards with ranks.
        share_prompts: Whether a comparison's responses share one copy of their prompt. The rewards are the
            same either way; False costs more and is there to be compared with.
        prune_last_layer: Whether the decoder's last layer is computed only where the head reads it, if the
            head says where. The rewards are the same either way.

    A subclass that overrides `rewards_of`, `hidden_states` or `score_of` sets `shares_backbone` and
    `shares_prefix` to True where models may still share hidden states, and comparisons their prompt.
    """

    head: Head
    shares_backbone = True
    shares_prefix = True
    reading: ClassVar[str] = ""
    """The name of the tokens at which responses are read; empty for the last ones."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Share nothing that a subclass replaces, unless it says that it may be shared."""
        super().__init_subclass__(**options)
        for capability, methods in REPLACED.items():
            if capability not in vars(cls) and not methods.isdisjoint(vars(cls)):
                setattr(cls, capability, False)

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        loss: Loss,
        *,
        share_prompts: bool = True,
        prune_last_layer: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.criterion = loss
        self.share_prompts = share_prompts
        self.prune_last_layer = prune_last_layer
        self._end_states: EndStateCache | None = None

    @property
    def reads(self) -> Literal["all", "ends"]:
        """The hidden states that the head reads."""
        return self.head.reads

    @property
    def uses_all_weights(self) -> bool:
        """Whether the gradient of any batch's loss reaches every trained weight."""
        return self.backbone.uses_all_weights and self.head.uses_all_weights

    def attach_feature_cache(self, cache: FeatureCache, precision: str = "weights") -> None:
        """Cache the results of frozen weights: the hidden states, if the whole backbone is frozen and the
        head reads the responses' ends, else the features of images.

        Call it after freezing. It changes no reward.

        Args:
            cache: Stores the results.
            precision: The precision of forward passes, as `precision_of` returns it.
        """
        if self._is_frozen() and self.reads == "ends" and self.backbone.fingerprint():
            self._end_states = EndStateCache(cache, self.backbone, precision, self.reading)
            self.shares_prefix = False  # a cache holds whole comparisons
        else:
            self.backbone.attach_feature_cache(cache, precision)
        self.train(self.training)

    def train(self, mode: bool = True) -> Scalar:
        """Switch to training mode or back; a frozen backbone stays in evaluation mode, so that its hidden
        states of a comparison are the same each time.
        """
        super().train(mode)
        if self._is_frozen():
            self.backbone.eval()
        return self

    def _is_frozen(self) -> bool:
        return not any(parameter.requires_grad for parameter in self.backbone.parameters())

    def prepare(self, comparison: Comparison) -> Prepared[Encoded]:
        """Do what the CPU can do ahead: open images, tokenize.

        Raises:
            DataError: When the comparison can't be encoded.
        """
        if self._end_states is None:
            return self.prepared_of(comparison, self.encode(comparison))
        key = self._end_states.key(comparison)
        ends = self._end_states.get(key)
        tree = self.encode(comparison) if ends is None else None
        # The size counts the head's rows, whether the states are cached or not: missing ones are computed
        # alone, and how a batch is divided must not depend on how far ahead it was prepared.
        return Prepared(comparison, Cached(tree, key, ends), Size(len(comparison.responses)))

    def encode(self, comparison: Comparison) -> Tree:
        """Return the tokens of a comparison, with the places at which its responses are read."""
        return self.backbone.encode(comparison)

    def prepared_of(self, comparison: Comparison, tree: Tree) -> Prepared[Encoded]:
        """Return an encoded comparison as prepared."""
        return Prepared(comparison, Encoded(tree), self.size_of(tree, shared=self.share_prompts))

    def join(self, batch: Sequence[Prepared[Encoded]]) -> Prepared[Encoded]:
        """Return comparisons of one prompt as one tree, in which the prompt is computed once."""
        trees = [item.content.tree for item in batch if item.content.tree is not None]
        # Where the tokenizer joins a response's beginning with the prompt's end, the prompt is shorter.
        length = min(len(tree.prompt) for tree in trees)
        trees = [tree.branching_at(length) for tree in trees]
        first = batch[0].comparison
        texts = [text for item in batch for text in item.comparison.responses]
        ids = [response for tree in trees for response in tree.responses]
        leads = [lead for tree in trees for lead in tree.leads]
        reads = [read for tree in trees for read in tree.reads]
        return self.prepared_of(
            Comparison(first.prompt, texts), replace(trees[0], responses=ids, leads=leads, reads=reads)
        )

    def rewards_of(self, hidden: Tensor, forest: Forest) -> Tensor:  # [B, L, D] -> [N]
        """Return the rewards of hidden states, fp32."""
        rewards: Tensor = self.head(hidden, forest)
        return rewards

    def forward(self, forest: Forest) -> Tensor:
        """Return the rewards [N] of a forest's responses, fp32."""
        return self.rewards_of(self.backbone(forest), forest)

    def hidden_states(self, batch: Sequence[Prepared[Encoded]]) -> tuple[Tensor, Forest]:
        """Return hidden states [B, L, D], of the ends alone where these are cached, and their forest."""
        if self._end_states is None:
            forest = self._forest(batch)
            return self.backbone(forest), forest
        states = []
        for item in batch:
            cached = item.content
            assert isinstance(cached, Cached)
            ends = cached.ends or self._end_states.get(cached.key)
            if ends is None:
                # Alone, since its last digits could depend on the rest of the batch: so a cached state is the
                # same whichever process computes it, and a resumed run equals an uninterrupted one.
                forest = self._forest([item])
                ends = self._end_states.put(cached.key, self.backbone(forest), forest)
            states.append(ends)
        return joined(states, next(self.head.parameters()).device)

    def loss_of(self, batch: Sequence[Prepared[Encoded]]) -> LossOutput:
        """Return the loss of prepared comparisons."""
        # Before the backbone, so that the device needn't wait for them after it.
        targets = Targets.of([item.comparison for item in batch], device=self.device)
        hidden, forest = self.hidden_states(batch)
        targets = replace(targets, lengths=forest.lengths)
        return apply_loss(self.criterion, self.rewards_of(hidden, forest), targets)

    @torch.no_grad()
    def score_of(self, batch: Sequence[Prepared[Encoded]]) -> Tensor:
        """Return the rewards [N] of prepared comparisons, in their order; training's dropout is not switched
        off.
        """
        return self.rewards_of(*self.hidden_states(batch))

    def _forest(self, batch: Sequence[Prepared[Encoded]]) -> Forest:
        trees = [item.content.tree for item in batch if item.content.tree is not None]
        forest = self.packed(trees, shared=self.share_prompts)
        # The last layer knows the last tokens of the branches alone.
        if self.prune_last_layer and all(tree.is_read_at_ends for tree in trees):
            forest = replace(forest, reads=self.reads)
        return forest
