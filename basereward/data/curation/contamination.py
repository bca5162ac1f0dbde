"""Find rows that share an image or a question with a benchmark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from basereward.comparison import Comparison
from basereward.config.conversion import Component
from basereward.data.curation.fingerprints import PerceptualIndex, key_of, perceptual_hash, question_of
from basereward.data.curation.near_duplicates import unopened
from basereward.data.curation.step import Step
from basereward.errors import ConfigError, DataError
from basereward.media.image import Image
from basereward.plugins.plugin_manager import PluginManager

SAME_IMAGE, LIKE_IMAGE, SAME_QUESTION = "same image", "similar image", "same question"


@dataclass
class Index:
    """The images and questions of benchmarks.

    Args:
        max_distance: Bits of 192 by which perceptual hashes of the same image may differ.

    Attributes:
        num_rows: Benchmark rows that were added.
        num_unopened: Images that could not be compared, since they are missing or damaged.
    """

    max_distance: int | None
    num_rows: int = 0
    num_unopened: int = 0
    _digests: dict[str, str] = field(default_factory=dict)
    _questions: dict[bytes, str] = field(default_factory=dict)
    _hashed: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._near = PerceptualIndex(self.max_distance or 0)

    def add(self, name: str, comparisons: Iterable[Comparison]) -> None:
        """Add the rows of a benchmark."""
        for comparison in comparisons:
            label = f"{name} {comparison.id}".strip()
            self.num_rows += 1
            question = question_of(comparison)
            if question:
                self._questions.setdefault(key_of([question]), label)
            for video in comparison.videos:
                try:
                    self._digests.setdefault(video.digest, label)
                except DataError:
                    self.num_unopened += 1
            for image in comparison.images:
                try:
                    if image.digest in self._digests:
                        continue
                    self._digests[image.digest] = label
                    if self.max_distance is not None:
                        self._near.add(perceptual_hash(image), label)
                except DataError:
                    self.num_unopened += 1

    def matches(self, comparison: Comparison) -> dict[str, str]:
        """Return the kinds of overlap of a row with a benchmark, each with the first row there that has it.

        Raises:
            DataError: When an image of the row can't be opened.
        """
        overlaps: dict[str, str] = {}
        for image in comparison.images:
            if image.digest in self._digests:
                overlaps.setdefault(SAME_IMAGE, self._digests[image.digest])
            elif self.max_distance is not None and (near := self._near.find(self._hash(image))):
                overlaps.setdefault(LIKE_IMAGE, near[0])
        for video in comparison.videos:
            if video.digest in self._digests:
                overlaps.setdefault(SAME_IMAGE, self._digests[video.digest])
        question = question_of(comparison)
        if question and (label := self._questions.get(key_of([question]))):
            overlaps[SAME_QUESTION] = label
        return overlaps

    def _hash(self, image: Image) -> int:
        if image.digest not in self._hashed:
            self._hashed[image.digest] = perceptual_hash(image)
        return self._hashed[image.digest]


class Contamination(Step):
    """Drop rows that share an image or a question with a benchmark.

    Images are compared by SHA-256 of their files and by perceptual hash, questions by their words: what the
    user says, without case and punctuation.

    Args:
        plugins: The plugins that provide benchmarks and datasets.
        benchmarks: Benchmarks by name, each with its `path` and options.
        data: Other files or directories of comparisons whose images and questions are not to be trained on.
        drop: Which rows: those that share "any" of both, an "image", a "question", or "both" of them where
            the row has an image. A question alone counts only if it has `min_question_words`, since "What
            is this?" is asked everywhere.
        min_question_words: See above.
        max_distance: Bits of 192 by which perceptual hashes of the same image may differ; None to compare
            files only, which is much faster.
    """

    name = "contamination"
    takes_plugins = True

    def __init__(
        self,
        plugins: PluginManager,
        *,
        benchmarks: tuple[Component, ...] = (),
        data: tuple[Path, ...] = (),
        drop: Literal["any", "image", "question", "both"] = "any",
        min_question_words: int = 8,
        max_distance: int | None = 6,
    ) -> None:
        if not (benchmarks or data):
            raise ConfigError("names no benchmark; set benchmarks, or data for files of your own")
        self.drop = drop
        self.min_question_words = min_question_words
        self.index = Index(max_distance)
        for component in benchmarks:
            benchmark: Any = plugins.build("benchmark", component)
            self.index.add(component.name, benchmark.comparisons())
        for path in data:
            from basereward.data.formats import read_comparisons

            self.index.add(path.name, read_comparisons(path, plugins=plugins))

    def __call__(self, comparison: Comparison) -> Comparison | DataError:
        """Drop or keep."""
        try:
            matches = self.index.matches(comparison)
        except DataError as error:
            return unopened(error)
        kinds = [kind for kind in matches if self._counts(kind, comparison)]
        shares_image = any(kind != SAME_QUESTION for kind in kinds)
        shares_question = SAME_QUESTION in kinds
        drops = {
            "any": bool(kinds),
            "image": shares_image,
            "question": shares_question,
            "both": shares_question and (shares_image or not comparison.images),
        }[self.drop]
        if not drops:
            return comparison
        labels = list(dict.fromkeys(matches[kind] for kind in kinds))
        return DataError(f"{' and '.join(kinds)}: as in {', '.join(labels)}")

    def _counts(self, kind: str, comparison: Comparison) -> bool:
        """Tell whether a match counts; along with an image, a short question does too."""
        if kind != SAME_QUESTION or (self.drop == "both" and comparison.images):
            return True
        return len(question_of(comparison).split()) >= self.min_question_words
