"""The contract of what scores comparisons."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from basereward.errors import DataError
from basereward.protocols.defaults import NO_FACTS, NONE, default
from basereward.stats.calibration import Calibration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from basereward.comparison import Comparison
    from basereward.paradigms.verdicts import Verdicts
    from basereward.prepared import Prepared
    from basereward.scoring.reward_model import RewardModel


Result = TypeVar("Result", covariant=True)


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
    def calibration(self) -> Calibration:
        """The scale of its rewards, where it was fitted on comparisons of known order."""
        return Calibration()

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
