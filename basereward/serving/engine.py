"""Engines, which score for the server: their protocol, a model of this process, and a judge."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from basereward.backbones.base import refuse_long_responses
from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.prepared import Prepared, Size
from basereward.scoring.ensemble import Ensemble
from basereward.scoring.judge_settings import is_judge
from basereward.scoring.loading import load_model
from basereward.scoring.reward_model import RewardModel
from basereward.scoring.scorer import EnsembleRewards
from basereward.scoring.writer_judge import WriterJudge
from basereward.serving.problems import Problem, log_failure, problem_of
from basereward.stats.calibration import Calibration
from basereward.storage.atomic import file_digest
from basereward.storage.model_directory import CONFIG_FILE
from basereward.writers.spending import estimated_tokens

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rewards:
    """The rewards [n] of a comparison's responses; of an ensemble also the members' rewards.

    Args:
        values: [n], all finite.
        members: The rewards [n] of each member that scored the comparison, by its name.
        disagreement: [n] how far the members are apart; empty where there is one.
    """

    values: list[float]
    members: dict[str, list[float]] = field(default_factory=dict)
    disagreement: list[float] = field(default_factory=list)

    def part(self, start: int, stop: int) -> Rewards:
        """Return the rewards of some of the responses."""
        members = {name: rewards[start:stop] for name, rewards in self.members.items()}
        return Rewards(self.values[start:stop], members, self.disagreement[start:stop])


class Engine(Protocol):
    """Scores comparisons. `prepare` runs in any of several threads, the others in one at a time."""

    name: str
    model_digest: str
    """SHA-256 of what the model is."""
    calibration: Calibration
    """The scale of its rewards, for probabilities."""
    computed: Mapping[str, str]
    """The device and the precision of its products."""
    template_digest: str
    """SHA-256 of what turns messages into tokens."""
    pads: bool
    """Whether each comparison of a batch takes as many tokens as the longest."""
    shares_prefix: bool
    """Whether comparisons of equal prompts can be joined."""

    def image_bytes(self, comparison: Comparison) -> int:
        """Return the bytes of what `prepare` makes of the images, of which no pixel is read for that."""

    def prepare(self, comparison: Comparison) -> Prepared[Any]:
        """Do what the CPU can do: open images, tokenize.

        Raises:
            Problem: When the comparison can't be scored.
        """

    def join(self, batch: Sequence[Prepared[Any]]) -> Prepared[Any]:
        """Return comparisons of one prompt as one comparison, whose responses are all of theirs in order."""

    def score(self, batch: Sequence[Prepared[Any]]) -> list[Rewards | Problem]:
        """Return each comparison's rewards, or why it has none. One that fails must not touch the others."""


class ModelEngine:
    """A model or an ensemble of this process.

    Args:
        name: What clients call it.
        model: What `basereward.load_model` returns.
        model_digest: SHA-256 of what the model is.
        calibration: The scale of its rewards; None for the one that its directory records.
    """

    def __init__(
        self,
        name: str,
        model: RewardModel | Ensemble,
        model_digest: str = "",
        calibration: Calibration | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.model_digest = model_digest
        self.calibration = calibration or model.calibration
        self.computed = model.computed
        judges = model.judges.values() if isinstance(model, Ensemble) else ()
        digests = [member.template_digest for member in model.models]
        digests += [judge.template.digest for judge in judges]
        self.template_digest = "+".join(dict.fromkeys(digests))
        self.pads = any(member.paradigm.pads for member in model.models)
        self.reads_images = model.reads_images
        self.shares_prefix = model.shares_prefix

    @classmethod
    def load(
        cls, name: str, directory: Path, *, device: str = "auto", precision: str | None = None
    ) -> ModelEngine:
        """Load a directory of a model or an ensemble; device and precision are as of `load_model`.

        Raises:
            ModelError: Naming the file or tensor that is at fault.
        """
        model = load_model(directory, device=device, precision=precision)
        return cls(name, model, file_digest(directory / CONFIG_FILE))

    def image_bytes(self, comparison: Comparison) -> int:
        """Return the bytes of the patches of the images, for all members together."""
        sizes = [image.size() for image in comparison.images]
        return sum(member.backbone.image_bytes(*size) for member in self.model.models for size in sizes)

    def prepare(self, comparison: Comparison) -> Prepared[Any]:
        """Open images, and tokenize.

        Raises:
            Problem: When the comparison can't be encoded.
        """
        if comparison.images and not self.reads_images:
            raise Problem("images_not_read")
        # A response that was cut short would be scored in silence as if it were whole.
        with refuse_long_responses():
            [prepared] = self.model.prepare_batch([comparison])
        if isinstance(prepared, DataError):
            raise problem_of(prepared)
        if self.shares_prefix:
            comparison.prompt_identity()  # digests of images are computed here, in a thread, and kept
        return prepared

    def join(self, batch: Sequence[Prepared[Any]]) -> Prepared[Any]:
        """Return comparisons of one prompt as one tree, in which the prompt is computed once."""
        return batch[0] if len(batch) == 1 else self.model.join(batch)

    def score(self, batch: Sequence[Prepared[Any]]) -> list[Rewards | Problem]:
        """Return each comparison's rewards; where the batch fails, each is tried alone."""
        try:
            results = self.model.score_prepared(batch)
        except Exception as error:
            log_failure(f"a pass of {len(batch)}", error)
            if len(batch) == 1:
                return [Problem("engine_failed")]
            return [result for one in batch for result in self.score([one])]
        return [_rewards(result) for result in results]


class JudgeEngine:
    """A judge that asks a writer.

    Args:
        name: What clients call it.
        judge: The judge; no command line is there to allow an upload, so its file has to.
        calibration: The scale of its rewards; None for none.
    """

    pads = False
    shares_prefix = False

    def __init__(self, name: str, judge: WriterJudge, calibration: Calibration | None = None) -> None:
        self.name = name
        self.model = judge
        self.calibration = calibration or judge.calibration
        self.computed = judge.computed
        self.model_digest = judge.digest
        self.template_digest = judge.template.digest

    def image_bytes(self, comparison: Comparison) -> int:
        """Return 0: images are sent as they are, and none is made into patches."""
        return 0

    def prepare(self, comparison: Comparison) -> Prepared[Any]:
        """Write the questions.

        Raises:
            Problem: When there are none about the comparison.
        """
        if comparison.images and not self.model.reads_images:
            raise Problem("images_not_read")
        [prepared] = self.model.prepare_batch([comparison])
        if isinstance(prepared, DataError):
            raise problem_of(prepared)
        # Tokens are the server's to count; about as many bound what waits for it.
        num_tokens = sum(sum(estimated_tokens(request)) for request in prepared.content.requests)
        return replace(prepared, size=Size(math.ceil(num_tokens)))

    def join(self, batch: Sequence[Prepared[Any]]) -> Prepared[Any]:
        """Return the only comparison: each is asked about by itself."""
        [only] = batch
        return only

    def score(self, batch: Sequence[Prepared[Any]]) -> list[Rewards | Problem]:
        """Return each comparison's rewards, of questions that are asked side by side."""
        results = self.model.score_prepared(batch)
        for result in results:
            if isinstance(result, DataError):
                logger.warning("judge %s: %s", self.name, result.reason)
        return [Problem("no_verdict") if isinstance(each, DataError) else _rewards(each) for each in results]


def load_engine(
    name: str, source: str | Path, *, device: str = "auto", precision: str | None = None
) -> ModelEngine | JudgeEngine:
    """Load a directory of a model or an ensemble, a judge's file, or the address of its server.

    Raises:
        ModelError: Naming the file or tensor of a directory that is at fault.
        ConfigError: When a judge's file is wrong, or the judge gives no rewards.
    """
    if not is_judge(source):
        return ModelEngine.load(name, Path(source), device=device, precision=precision)
    judge = WriterJudge.load(source)
    judge.check_rewards()
    return JudgeEngine(name, judge)


def _rewards(result: Sequence[float] | DataError) -> Rewards | Problem:
    if isinstance(result, DataError):
        return Problem("no_score")
    if isinstance(result, EnsembleRewards):
        return Rewards(list(result), result.members, result.disagreement)
    return Rewards(list(result))
