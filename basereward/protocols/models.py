"""Contracts of what a model is made of: backbone, head, loss and paradigm."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from basereward.errors import ConfigError, DataError
from basereward.protocols.defaults import NONE, Module, default

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from basereward.backbones.base import TokenLimit
    from basereward.backbones.feature_cache import FeatureCache
    from basereward.backbones.lm_head import LanguageHead
    from basereward.comparison import Comparison
    from basereward.forest.forest import Forest, Tree
    from basereward.losses import LossOutput, Targets
    from basereward.paradigms.verdicts import Verdicts
    from basereward.prepared import Prepared


class Backbone(Module):
    """Comparisons in, hidden states [B, L, D] out."""

    dim: int
    """Width D of the hidden states."""
    pad: int = 0
    """The token id that fills rows."""
    shares: bool = True
    """Whether responses may share their prompt's computation; False where the model's attention can't follow
    a forest's rule, and each response then gets a row of its own."""
    template_digest: str = ""
    """SHA-256 of the chat template; empty where there is none."""
    unsaved_options: Sequence[str] = ()
    """Options of the model in memory alone, such as a quantization; a saved model is loaded without them."""
    num_truncated: int = 0
    """Responses cut short so far, each time they were encoded."""
    always_runs_vision: bool = False
    """Whether a batch without images sends a blank image through the vision tower and the projector, so that
    processes that train together compute the same in the same order."""
    limit: TokenLimit | None = None
    """The longest comparison; None for no limit."""
    tokenizer: Any = None
    """The transformers tokenizer; None where the backbone reads text without one."""

    @default
    def uses_all_weights(self) -> bool:
        """Whether the hidden states of any batch depend on every weight, `always_runs_vision` set."""
        return False

    @default
    def packs(self) -> bool:
        """Whether the trees of a batch may lie in one row without padding."""
        return False

    @default
    def supports_kv_cache(self) -> bool:
        """Whether `forward` keeps keys and values in a forest's KV cache, where there is one."""
        return self.packs

    @abstractmethod
    def encode(self, comparison: Comparison) -> Tree:
        """Return the token ids, positions and images of a comparison; no weights are touched."""

    @abstractmethod
    def pack(self, trees: Sequence[Tree], *, shared: bool = True, row_tokens: float | None = None) -> Forest:
        """Return trees as one batch, on the CPU."""

    @abstractmethod
    def forward(self, forest: Forest) -> Tensor:
        """Return the hidden states [B, L, D] of a forest."""

    @abstractmethod
    def parts(self) -> Mapping[str, Module]:
        """Return the modules that can be frozen: "vision", "projector", "language"."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write weights and processor files in the hub's own layout."""

    def blocks(self) -> list[Module]:
        """Return the repeated blocks, to be sharded and recomputed one by one."""
        return []

    def blocks_to_compile(self) -> list[Module]:
        """Return the blocks that `torch.compile` can take one by one, on a GPU in bf16; by default none."""
        return []

    def layer_divisions(self, num_ranks: int) -> Mapping[Module, Literal["columns", "rows", "heads"]]:
        """Return how so many processes divide each layer (tensor parallelism).

        Linear layers of `columns` compute each process's share of the output from all of the input, those of
        `rows` a summand of all of the output from the share, and modules of `heads` between them work on the
        share with the same weights.

        Raises:
            ConfigError: When they can't divide them.
        """
        raise ConfigError(
            f"train.tensor_ranks: backbone {type(self).__name__} has no layers that processes can divide; "
            "leave it out"
        )

    def image_bytes(self, width: int, height: int) -> int:
        """Return about how many bytes `encode` makes of an image of so many pixels."""
        return 24 * width * height  # three channels of four bytes, of two frames

    def ahead(self) -> list[Module]:
        """Return the frozen modules that `encode` runs."""
        return []

    def fingerprint(self) -> str:
        """Return a digest of all besides weights that decides hidden states; empty if not known."""
        return ""

    def attach_feature_cache(self, cache: FeatureCache, precision: str) -> None:
        """Cache the features that frozen weights compute of each image."""

    def language_head(self) -> LanguageHead:
        """Return the language-model head, for paradigms that read or write text."""
        raise ConfigError(
            f"backbone {type(self).__name__} writes no text; all paradigms but scalar need one "
            "that does, such as causal-lm or qwen-vl"
        )

    def control_ids(self) -> list[int]:
        """Return the tokens that are no text."""
        return []

    def turn_opening(self) -> str:
        """Return the beginning of an answer that the chat template writes itself, such as "<think>"."""
        return ""

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, control tokens left out."""
        raise ConfigError(f"backbone {type(self).__name__} writes no text")

    def truncate(self, num_layers: int) -> None:
        """Drop the decoder layers after the first `num_layers`, and the final norm."""
        raise ConfigError(f"backbone {type(self).__name__} can't read a middle layer; leave out head.layer")

    if TYPE_CHECKING:

        def __call__(self, forest: Forest) -> Tensor: ...  # noqa: D102


class Head(Module):
    """Hidden states [B, L, D] in, rewards [N] fp32 out."""

    reads: Literal["all", "ends"] = "all"
    """The hidden states that it reads: all, or those at `forest.ends` only."""
    reads_layer: int | None = None
    """The decoder layer that it reads, counted from 1; None for the last, after the final norm."""
    uses_all_weights: bool = False
    """Whether any batch's rewards depend on every weight."""

    @abstractmethod
    def forward(self, hidden: Tensor, forest: Forest) -> Tensor:
        """Return the rewards [N] fp32 of hidden states [B, L, D]."""

    if TYPE_CHECKING:

        def __call__(self, hidden: Tensor, forest: Forest) -> Tensor: ...  # noqa: D102


class Loss(Module):
    """Rewards [N] and targets in, their weighted mean loss out."""

    learns_from_ties: bool = False
    """Whether a comparison of ties alone has a gradient."""
    learns_from_single: bool = False
    """Whether a comparison of one response has a gradient."""

    @abstractmethod
    def forward(self, rewards: Tensor, targets: Targets) -> LossOutput:
        """Return the weighted mean loss of rewards [N]."""

    def untrainable_reason(self, comparison: Comparison) -> DataError | None:
        """Return why a comparison never gives this loss a gradient, whatever its rewards; None if it may."""
        if comparison.ranks is None:
            return DataError("has no ranks or ratings, so nothing can be learnt from it", field="ranks")
        if len(comparison.responses) == 1 and not self.learns_from_single:
            return DataError(
                "one response alone teaches this loss nothing; two are needed", field="responses"
            )
        if len(comparison.responses) > 1 and len(set(comparison.ranks)) == 1 and not self.learns_from_ties:
            return DataError("all responses are tied, which teaches this loss nothing", field="ranks")
        return None

    if TYPE_CHECKING:

        def __call__(self, rewards: Tensor, targets: Targets) -> LossOutput: ...  # noqa: D102


class Paradigm(Module):
    """A backbone, a head and a loss put together: comparisons in, a loss or rewards [N] out."""

    backbone: Backbone
    head: Module  # a `Head`, or the language-model head of a judge; a subclass may narrow it
    template_digest: str = ""
    """SHA-256 of the templates that scores depend on; empty for the backbone's alone."""
    reason_for_nan: str = "the model gives a reward that is not finite"
    share_prompts: bool = True
    """Whether the responses of a comparison share one copy of their prompt, where the backbone can."""
    shares_prefix: bool = False
    """Whether `join` can make one tree of comparisons with equal prompts: no reward depends on the responses
    beside it."""
    is_comparative: bool = False
    """Whether a response's reward depends on the responses beside it."""
    shares_backbone: bool = False
    """Whether models of this paradigm with one backbone may share `hidden_states`, of which each makes its
    rewards by `rewards_of`."""
    reward_unit: str = ""
    """The unit of its rewards where they are bounded, such as "wins, 0 to 1"; empty where they are not."""
    text_key: str = ""
    """The key of a comparison's `meta` under which the texts of `texts_of` are scored as they stand; empty if
    it writes none."""

    @default
    def uses_all_weights(self) -> bool:
        """Whether the gradient of any batch's loss reaches every trained weight."""
        return False

    @default
    def reads(self) -> Literal["all", "ends"]:
        """The hidden states that `rewards_of` reads."""
        return "all"

    @default
    def pads(self) -> bool:
        """Whether each comparison of a batch takes as many tokens as the longest."""
        return True

    @default
    def statistics(self) -> Mapping[str, float]:
        """Counts made while scoring, by name."""
        return NONE

    def takes(self, num_responses: int) -> bool:
        """Tell whether a comparison of so many responses can be scored."""
        return True

    @contextmanager
    def recording_verdicts(self) -> Iterator[dict[int, Verdicts]]:
        """Give a dictionary that takes the verdicts on each comparison that is scored, by its `id()`."""
        yield {}

    @abstractmethod
    def prepare(self, comparison: Comparison) -> Prepared[Any]:
        """Return what the CPU can do ahead: images opened, texts tokenized."""

    @abstractmethod
    def loss_of(self, batch: Sequence[Prepared[Any]]) -> LossOutput:
        """Return the loss of prepared comparisons."""

    @abstractmethod
    def score_of(self, batch: Sequence[Prepared[Any]]) -> Tensor:
        """Return the rewards [N] of prepared comparisons, in their order."""

    def loss(self, comparisons: Sequence[Comparison]) -> LossOutput:
        """Return the loss of comparisons."""
        return self.loss_of([self.prepare(comparison) for comparison in comparisons])

    def score(self, comparisons: Sequence[Comparison]) -> Tensor:
        """Return the rewards [N] of comparisons, in their order."""
        return self.score_of([self.prepare(comparison) for comparison in comparisons])

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Switch to evaluation, and back."""
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    def attach_feature_cache(self, cache: FeatureCache, precision: str = "weights") -> None:
        """Cache the results of frozen weights; no reward changes."""

    def join(self, batch: Sequence[Prepared[Any]]) -> Prepared[Any]:
        """Return prepared comparisons of one prompt as one, if `shares_prefix`."""
        raise NotImplementedError(f"{type(self).__name__} has no join, which its shares_prefix promises")

    def hidden_states(self, batch: Sequence[Prepared[Any]]) -> tuple[Tensor, Forest]:
        """Return the hidden states of prepared comparisons and their forest, if `shares_backbone`."""
        raise NotImplementedError(
            f"{type(self).__name__} has no hidden_states, which its shares_backbone promises"
        )

    def rewards_of(self, hidden: Tensor, forest: Forest) -> Tensor:
        """Return the rewards [N] of hidden states, if `shares_backbone`."""
        raise NotImplementedError(
            f"{type(self).__name__} has no rewards_of, which its shares_backbone promises"
        )

    def texts_of(self, batch: Sequence[Prepared[Any]]) -> list[list[Any]]:
        """Return what is written on each prepared comparison, if it has a `text_key`."""
        raise NotImplementedError(f"{type(self).__name__} has no texts_of, which its text_key promises")
