"""What the server asks of a model, and models of this process that do it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.paradigms.scalar import Scalar
from basereward.scoring.batching import Size, size_of
from basereward.scoring.ensemble import load_model
from basereward.serving.problems import Problem, log_failure, problem_of
from basereward.storage.atomic import file_digest
from basereward.storage.model_directory import CONFIG_FILE


@dataclass(frozen=True)
class Rewards:
    """The rewards [n] of a comparison's responses; of an ensemble also what they were made of.

    Args:
        values: [n], all finite.
        members: The rewards [n] of each member that was asked, by its name.
        disagreement: [n] how far the members are apart; empty where there is one.
    """

    values: list[float]
    members: dict[str, list[float]] = field(default_factory=dict)
    disagreement: list[float] = field(default_factory=list)

    def part(self, start: int, stop: int) -> Rewards:
        """Return the rewards of some of the responses."""
        members = {name: own[start:stop] for name, own in self.members.items()}
        return Rewards(self.values[start:stop], members, self.disagreement[start:stop])


@dataclass(frozen=True)
class Prepared:
    """A comparison as a model reads it.

    Args:
        comparison: What is to be scored.
        content: What the model made of it.
        size: What it costs.
        prompt: What is the same for comparisons that may share a tree; None where none may.
    """

    comparison: Comparison
    content: Any
    size: Size
    prompt: Hashable = None


class Engine(Protocol):
    """Scores comparisons. `prepare` runs in any of several threads, the others in one at a time."""

    name: str
    model_digest: str
    """SHA-256 of what the model is."""
    template_digest: str
    """SHA-256 of what turns messages into tokens."""
    pads: bool
    """Whether each comparison of a batch takes as many places as the longest."""

    def prepare(self, comparison: Comparison) -> Prepared:
        """Do what the CPU can do: open images, tokenize.

        Raises:
            Problem: When the comparison can't be scored.
        """

    def join(self, batch: Sequence[Prepared]) -> Prepared:
        """Return comparisons of one prompt as one comparison, whose responses are all of theirs in order."""

    def score(self, batch: Sequence[Prepared]) -> list[Rewards | Problem]:
        """Return each comparison's rewards, or why it has none. One that fails must not touch the others."""


class ModelEngine:
    """A model or an ensemble of this process.

    Args:
        name: What clients call it.
        model: What `basereward.load_model` returns.
        model_digest: SHA-256 of what the model is.
    """

    def __init__(self, name: str, model: Any, model_digest: str = "") -> None:
        self.name = name
        self.model = model
        self.model_digest = model_digest
        members = list(model.members.models.values()) if hasattr(model, "members") else [model]
        self.template_digest = "+".join(dict.fromkeys(member.template_digest for member in members))
        self.pads = any(getattr(member.paradigm, "pads", False) for member in members)
        self.reads_images = any("vision" in member.backbone.parts() for member in members)
        # The rewards of a scalar model are of each response alone, whatever stands beside it.
        self.joins = type(getattr(model, "paradigm", None)) is Scalar
        for member in members:
            if (limit := getattr(member.backbone, "limit", None)) is not None:
                # What is cut short would be scored in silence as if it were whole.
                limit.on_long = "refuse"

    @classmethod
    def load(cls, name: str, directory: Path, *, device: str) -> ModelEngine:
        """Load a directory of a model or an ensemble.

        Raises:
            ModelError: Naming the file or tensor that is at fault.
        """
        model = load_model(directory, device=device)
        return cls(name, model, file_digest(directory / CONFIG_FILE))

    def prepare(self, comparison: Comparison) -> Prepared:
        """Open images, and tokenize.

        Raises:
            Problem: When the comparison can't be encoded.
        """
        if comparison.images and not self.reads_images:
            raise Problem("images_not_read")
        content = self.model.prepare_batch([comparison])
        sizes = []
        for paradigm, items in self.model.passes_of(content):
            for item in items:
                if isinstance(item, DataError):
                    raise problem_of(item)
                sizes.append(size_of(paradigm, item))
        size = Size(max(own.tokens for own in sizes), max(own.patches for own in sizes)) if sizes else Size(0)
        prompt = comparison.prompt if self.joins else None
        hash(prompt)  # digests of images are computed here, in a thread, and kept
        return Prepared(comparison, content, size, prompt)

    def join(self, batch: Sequence[Prepared]) -> Prepared:
        """Return comparisons of one prompt as one tree, in which the prompt is computed once."""
        if len(batch) == 1:
            return batch[0]
        comparison = Comparison(
            batch[0].comparison.prompt, [text for one in batch for text in one.comparison.responses]
        )
        items = [item for one in batch for item in one.content]
        responses = [ids for item in items for ids in item.tree.responses]
        item = replace(items[0], comparison=comparison, tree=replace(items[0].tree, responses=responses))
        return Prepared(comparison, [item], size_of(self.model.paradigm, item), batch[0].prompt)

    def score(self, batch: Sequence[Prepared]) -> list[Rewards | Problem]:
        """Return each comparison's rewards; where a pass fails, each is tried alone."""
        try:
            found = self.model.score_prepared(
                [one.comparison for one in batch],
                self.model.concatenated([one.content for one in batch]),
            )
        except Exception as error:
            log_failure(f"a pass of {len(batch)}", error)
            if len(batch) == 1:
                return [Problem("engine_failed")]
            return [result for one in batch for result in self.score([one])]
        return [
            Problem("no_score")
            if isinstance(own, DataError)
            else Rewards(list(own), getattr(own, "members", {}), getattr(own, "disagreement", []))
            for own in found
        ]
