"""The contract of each kind of component as a type: abstract methods are required, all else has a default.

A component derives from its contract (`class MLP(Head, nn.Module)`) or from nothing of ours: `adopt` gives
its class the defaults of the members that it lacks. So nothing has to ask which members a component has.

Shapes: as in `basereward.hookspecs`, whose docstrings say what each member promises.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import contextmanager, nullcontext
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from basereward.errors import ConfigError, DataError, PluginError
from basereward.hookspecs import KINDS

if TYPE_CHECKING:
    from builtins import property as default
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor
    from torch.nn import Module

    from basereward.backbones.base import TokenLimit
    from basereward.backbones.feature_cache import FeatureCache
    from basereward.backbones.lm_head import LanguageHead
    from basereward.comparison import Comparison
    from basereward.forest.forest import Forest, Tree
    from basereward.losses import LossOutput, Targets
    from basereward.paradigms.verdicts import Verdicts
    from basereward.prepared import Prepared
    from basereward.scoring.reward_model import RewardModel
    from basereward.stats.metric import Score
    from basereward.writers.request import Completion, Request
else:
    Module = object  # listing plugins must not import torch

    class default:
        """A property that an attribute of the instance replaces."""

        def __init__(self, compute: Any) -> None:
            self.compute = compute

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            return self if instance is None else self.compute(instance)


Result = TypeVar("Result", covariant=True)
NONE: Final[Mapping[str, float]] = MappingProxyType({})
NO_FACTS: Final[Mapping[str, str]] = MappingProxyType({})


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
            f"backbone {type(self).__name__} writes no text; the critic and generative paradigms need one "
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


class Ensembler:
    """Rewards [M, N] of members in, rewards [N] out."""

    learns: bool = False
    """Whether it has to be fitted; `adopt` sets it for a class with a `fit` of its own."""
    is_comparative: bool = False
    """Whether a response's reward depends on the responses beside it."""
    is_scale_free: bool = False
    """Whether a member with larger rewards counts for no more than others."""
    unit: str | None = None
    """The unit of its rewards where it is on none of the members' scales, such as "rank"."""
    reason_for_nan: str = ""
    """Why a reward may be not-a-number, if it ever is."""

    @abstractmethod
    def __call__(self, members: Tensor, comparisons: Sequence[Comparison]) -> Tensor:
        """Return the rewards [N] of the members' rewards [M, N]."""

    def fit(self, members: Tensor, comparisons: Sequence[Comparison]) -> None:
        """Learn from the members' rewards [M, N] of comparisons whose ranks are known."""

    def state(self) -> dict[str, Any]:
        """Return the learned values, for JSON."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the learned values."""

    def route(self, comparison: Comparison, reads_images: Sequence[bool]) -> Sequence[bool]:
        """Return which members [M] score a comparison; the rewards of the others are not-a-number."""
        return [True] * len(reads_images)


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


class Dataset:
    """Files in, comparisons out, in the same order every time."""

    on_bad_row: Literal["skip", "fail"] = "skip"
    """Whether a bad row is listed in `rejected` or raised."""
    rejected: Sequence[DataError] = ()
    """The bad rows that the latest iteration has skipped."""
    unread_splits: str = ""
    """A sentence for the user on data beside the files that is not read; empty if there is none."""
    files: Sequence[Path] = ()
    varies_by_epoch: bool = False
    """Whether `set_epoch` changes the rows; `adopt` sets it for a class with a `set_epoch` of its own."""
    published_responses: int | None = None
    """Responses of a comparison of the data set as it was published; None where only its rows can tell."""

    @classmethod
    def responses_of(cls, options: Mapping[str, Any]) -> int | None:
        """Return the responses of a published comparison, as it is read with such options."""
        return cls.published_responses

    @default
    def num_rows(self) -> int | None:
        """About how many rows there are; None where that is not cheap to know."""
        return None

    @abstractmethod
    def __iter__(self) -> Iterator[Comparison]: ...

    def read(self) -> Iterator[Comparison | DataError]:
        """Yield each row as a comparison, or as the error that says why it is none."""
        yield from self

    def probe(self, num: int) -> Iterator[Comparison | DataError]:
        """Yield about as many items of `read` as asked for, to see what the data is like."""
        return islice(self.read(), num)

    def count(self) -> int:
        """Return how many items `read` yields."""
        return sum(1 for _ in self.read())

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose rows are read next."""


class Benchmark:
    """A published test set with its official metrics."""

    title: str = ""
    """Its name in print; empty for the name that it is registered under."""
    size: int | None = None
    """How many comparisons were published."""
    ties: str = ""
    """What the official metric does with equal rewards."""

    @abstractmethod
    def comparisons(self) -> Iterable[Comparison]:
        """Return the comparisons, in the same order every time."""

    @abstractmethod
    def report(self, rewards: Sequence[Sequence[float] | None]) -> Mapping[str, Score]:
        """Return every metric by its name, the official one first."""


class Writer:
    """Requests in, texts in the same order out."""

    @default
    def requests_at_once(self) -> int:
        """The requests that keep it busy: a caller that has more hands over as many at once."""
        return 1

    @default
    def reads_images(self) -> bool:
        """Whether a request with an image is answered at all."""
        return True

    @default
    def statistics(self) -> Mapping[str, float]:
        """Counts made while writing, by name: tokens, seconds, price."""
        return NONE

    @default
    def facts(self) -> Mapping[str, str]:
        """The model and all else that a report says of who wrote, by name."""
        return NO_FACTS

    @abstractmethod
    def write(self, requests: Sequence[Request]) -> Sequence[Completion]:
        """Return a text for each request, in their order; several threads may call it."""

    def estimate(self, requests: Sequence[Request]) -> Mapping[str, float]:
        """Return what the requests would take, by name, and write nothing."""
        return {"requests": len(requests)}


class Scorer(Generic[Result]):
    """Scores comparisons: a model, an ensemble, or a baseline without a model."""

    is_ensemble: bool = False

    @default
    def models(self) -> Sequence[RewardModel]:
        """The models that score: one, an ensemble's members, or none of a baseline."""
        return ()

    @default
    def shares_prefix(self) -> bool:
        """Whether `join` can make one tree of comparisons with equal prompts."""
        return False

    @default
    def is_comparative(self) -> bool:
        """Whether a response's reward depends on the responses beside it, as a judge's does."""
        return False

    @default
    def num_tokens(self) -> int:
        """Tokens of the forward passes so far, padding and written ones left out; 0 of a baseline."""
        return 0

    @default
    def num_truncated(self) -> int:
        """Responses cut short so far to fit `max_tokens`, each time they were read."""
        return 0

    @default
    def statistics(self) -> Mapping[str, float]:
        """Counts made while scoring, by name."""
        return NONE

    @default
    def facts(self) -> Mapping[str, str]:
        """All else that a report says after scoring, by name, such as the models that answered."""
        return NO_FACTS

    @default
    def smallest_batch(self) -> int:
        """The comparisons that have to be scored at once to keep it busy."""
        return 1

    def recording_verdicts(self) -> AbstractContextManager[dict[int, Verdicts]]:
        """Give a dictionary that takes the verdicts of a single judge on each comparison, by its `id()`."""
        models = self.models
        return models[0].paradigm.recording_verdicts() if len(models) == 1 else nullcontext({})

    @default
    def computed(self) -> Mapping[str, str]:
        """The device and the precision of the models' products, for reports; empty without a model."""
        columns: dict[str, dict[str, None]] = {}
        for model in self.models:
            columns.setdefault("device", {})[model.precision.device] = None
            columns.setdefault("precision", {})[model.precision.name] = None
        return {name: ", ".join(values) for name, values in columns.items()}

    @abstractmethod
    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8
    ) -> Iterator[tuple[Comparison, Result | DataError]]:
        """Yield each comparison with its rewards or its error, in order."""

    def join(self, batch: Sequence[Prepared[Any]]) -> Prepared[Any]:
        """Return prepared comparisons of one prompt as one, if `shares_prefix`."""
        raise NotImplementedError(f"{type(self).__name__} has no join, which its shares_prefix promises")


CONTRACTS: Final[Mapping[str, type]] = {
    "backbone": Backbone,
    "head": Head,
    "loss": Loss,
    "ensembler": Ensembler,
    "paradigm": Paradigm,
    "dataset": Dataset,
    "benchmark": Benchmark,
    "writer": Writer,
}
"""The contract of each kind in `basereward.hookspecs.KINDS`."""

FLAGS: Final = {"ensembler": ("learns", "fit"), "dataset": ("varies_by_epoch", "set_epoch")}
"""Members that are True where a class has a method of its own."""


def adopt(kind: str, cls: type, subject: str) -> None:
    """Give a component's class the defaults of its contract for the optional members that it lacks.

    Args:
        kind: Of the component.
        cls: Its class, which is changed.
        subject: What an error is about: "head 'x' of plugin 'p' (module:Class)".

    Raises:
        PluginError: When it lacks a required method.
    """
    contract = CONTRACTS[kind]
    missing = []
    for name, member in vars(contract).items():
        if getattr(member, "__isabstractmethod__", False):
            if not _is_defined(cls, name):
                missing.append(name)
        elif not name.startswith("_") and not hasattr(cls, name):
            setattr(cls, name, member)
    if missing:
        methods = "method" if len(missing) == 1 else "methods"
        raise PluginError(
            f"{subject} has no {methods} {', '.join(missing)}; see basereward.hookspecs.{KINDS[kind]}"
        )
    if kind in FLAGS:
        flag, method = FLAGS[kind]
        if getattr(cls, method) is not getattr(contract, method):
            setattr(cls, flag, True)


def _is_defined(cls: type, name: str) -> bool:
    """Tell whether a class has a method; that of `nn.Module`'s `forward` which only raises is none."""
    # Not by `getattr`, which finds a metaclass's `__call__` on any class.
    member = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
    is_unimplemented = getattr(member, "__name__", "") == "_forward_unimplemented"
    return member is not None and not is_unimplemented and not getattr(member, "__isabstractmethod__", False)
