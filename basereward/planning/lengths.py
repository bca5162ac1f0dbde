"""Lengths of the rows of a run's data: measured on some of them, or assumed where there are none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any

from basereward.backbones.chat_template import Chat
from basereward.comparison import Comparison
from basereward.config.run import RunConfig, Source
from basereward.costs.architecture import Architecture
from basereward.costs.flops import Counts
from basereward.data import Dataset
from basereward.data.mixture import quotas
from basereward.data.ranking_pairs import open_source
from basereward.errors import ConfigError, DataError
from basereward.planning.image_grids import Grid, image_grids
from basereward.plugins.plugin_manager import PluginManager

SAMPLE = 256
"""Rows of each data set that are measured."""

CHARACTERS_PER_TOKEN = 4
TEMPLATE_TOKENS = 20
"""Estimates for English text and a chat template, for use without a tokenizer."""


@dataclass(frozen=True)
class Row:
    """One comparison.

    Args:
        text_tokens: Of the prompt, without its images.
        responses: Tokens of each response.
        grids: For each image the patches along time, height and width.
    """

    text_tokens: int
    responses: tuple[int, ...]
    grids: tuple[tuple[int, int, int], ...] = ()


ASSUMED = Row(text_tokens=100, responses=(200, 200))
ASSUMED_IMAGE = (480, 640)
"""The row assumed where nothing is known; height and width in pixels."""


@dataclass(frozen=True)
class AssumedResponses:
    """The responses of a comparison that are assumed of a data set which isn't here.

    Args:
        number: How many.
        is_published: Whether the data set is known to have as many; else any number may be right.
    """

    number: int
    is_published: bool


@dataclass(frozen=True)
class Overrides:
    """Lengths that the user sets; None for those that are measured or assumed."""

    prompt_tokens: int | None = None
    response_tokens: int | None = None
    image_tokens: int | None = None
    num_responses: int | None = None
    num_rows: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("prompt", 1), ("response", 1), ("image", 0)):
            value = getattr(self, f"{name}_tokens")
            if value is not None and value < least:
                raise ConfigError(f"--{name}-tokens is {value}; allowed: {least} or more")
        for name, least in (("responses", 2), ("rows", 1)):
            value = getattr(self, f"num_{name}")
            if value is not None and value < least:
                raise ConfigError(f"--num-{name} is {value}; allowed: {least} or more")


@dataclass(frozen=True)
class Lengths:
    """The sizes of the rows of an epoch.

    Args:
        num_rows: How many there are.
        pairs: Pairs of responses a row.
        mean: Of an average row, its prompt once.
        alone: The same, with a copy of the prompt to each response.
        longest: Of the longest row that may come.
        measured: Data sets of which rows were measured, and how many of them.
        assumed: Data sets that aren't here, and the responses of their comparisons.
    """

    num_rows: int
    pairs: float
    mean: Counts
    alone: Counts
    longest: Counts
    measured: dict[str, int]
    assumed: dict[str, AssumedResponses]


class Measure:
    """Turns comparisons into numbers of tokens and patches.

    Args:
        model: The reward model, with or without weights.
        architecture: Of the model.
        options: Of the backbone.
        tokenizer: None where it is not on this machine.
    """

    def __init__(
        self, model: Any, architecture: Architecture, options: Any, tokenizer: Any | None = None
    ) -> None:
        self.architecture = architecture
        self.max_frames = int(options.get("max_frames", 16))
        self.images = (
            image_grids(model.backbone, options, architecture.patches_per_token)
            if architecture.vision is not None
            else None
        )
        self.chat: Chat | None = None
        if tokenizer is not None:
            self.chat = self.images.chat(tokenizer) if self.images else Chat(tokenizer)
            self.chat.probe(str(tokenizer.name_or_path))

    def row(self, comparison: Comparison) -> Row:
        """Return the numbers of a comparison.

        Raises:
            DataError: When it can't be encoded.
        """
        for field in ("images", "videos"):
            if getattr(comparison, field) and self.images is None:
                raise DataError(f"the model reads text only; take the {field} out of the row", field=field)
        grids: list[Grid] = []
        markers: list[list[int]] = []  # around the tokens of each image, and of each video
        of_videos: list[list[int]] = []
        if self.images is not None:
            grids = [self.images.grid(*_size(image)) for image in comparison.images]
            markers = [[0] * self.images.num_markers for _ in comparison.images]
            for video in comparison.videos:
                frames = video.limited(self.max_frames).frames
                grids.append(self.images.of_video(len(frames), *_size(frames[0])))
                of_videos.append([0] * self.images.markers_of_video(len(frames)))
        if self.chat is None:
            prompt = sum(len(message.text) for message in comparison.prompt)
            characters = [len(text) for text in comparison.responses]
            text = TEMPLATE_TOKENS + math.ceil(prompt / CHARACTERS_PER_TOKEN)
            return Row(
                text,
                tuple(1 + math.ceil(length / CHARACTERS_PER_TOKEN) for length in characters),
                tuple(grids),
            )
        ids, responses = self.chat.encode(comparison.prompt, comparison.responses, markers, of_videos)
        return Row(len(ids), tuple(map(len, responses)), tuple(grids))

    def tokens(self, row: Row) -> int:
        """Return the tokens of a row's prompt."""
        patches = sum(math.prod(grid) for grid in row.grids)
        return row.text_tokens + patches // self.architecture.patches_per_token

    def counts(self, row: Row, *, shared: bool = True) -> Counts:
        """Return the amounts to compute of a row."""
        window = self.architecture.vision.window if self.architecture.vision else None
        return Counts.of_lengths(self.tokens(row), row.responses, row.grids, window=window, shared=shared)

    def changed(self, row: Row, overrides: Overrides) -> Row:
        """Return a row with the lengths that the user has set."""
        responses = row.responses
        if (number := overrides.num_responses) is not None:
            responses = tuple(responses[place % len(responses)] for place in range(number))
        if overrides.response_tokens is not None:
            responses = (overrides.response_tokens,) * len(responses)
        grids = row.grids
        if grids and (number := overrides.image_tokens) is not None:
            assert self.images is not None
            grids = (self.images.of_tokens(number),) if number else ()
        text = row.text_tokens if overrides.prompt_tokens is None else overrides.prompt_tokens
        return Row(text, responses, grids)


def _size(image: Any) -> tuple[int, int]:
    """Return an image's height and width."""
    width, height = image.open().size
    return height, width


@dataclass(frozen=True)
class _Source:
    """A data set: its number of rows, some of them in numbers, and whether they show images."""

    name: str
    num_rows: int
    rows: Sequence[Row]
    multimodal: bool
    assumed: AssumedResponses | None = None


def lengths(
    run: RunConfig,
    measure: Measure,
    plugins: PluginManager,
    *,
    shared: bool,
    overrides: Overrides,
    progress: Callable[[str], None] = lambda text: None,
) -> Lengths:
    """Return the sizes of the rows of a run's training data.

    Args:
        run: The run, its components' options filled in.
        measure: Turns comparisons into numbers.
        plugins: Where data sets are looked up.
        shared: Whether responses share their prompt.
        overrides: Lengths that the user sets.
        progress: Takes the name of each data set before it is read.

    Raises:
        ConfigError: When nothing says how many rows there are.
        DataError: When none of the rows that were read can be used.
    """
    sources = [_measured(source, measure, plugins, overrides, progress) for source in run.data.train]
    drawn = quotas(
        [item.num_rows for item in sources],
        [item.multimodal for item in sources],
        run.data.train,
        run.data.mixture,
    )
    limit = run.backbone.options.get("max_tokens")
    total = max(sum(drawn), 1)
    mean = alone = Counts()
    pairs = 0.0
    longest: list[Counts] = []
    for item, quota in zip(sources, drawn, strict=True):
        if not quota:
            continue
        rows = [measure.changed(row, overrides) for row in item.rows]
        fitting = [row for row in rows if limit is None or measure.tokens(row) + max(row.responses) <= limit]
        if not fitting:
            raise DataError(
                f"{item.name}: no row fits max_tokens = {limit}; raise it, or lower the backbone's max_pixels"
            )
        share = quota / total / len(fitting)
        for row in fitting:
            mean += measure.counts(row, shared=shared) * share
            alone += measure.counts(row, shared=False) * share
            pairs += math.comb(len(row.responses), 2) * share
            longest.append(measure.counts(row, shared=shared))
    if limit is not None:
        longest.append(
            _full(limit, [row for item in sources for row in item.rows], measure, overrides, shared)
        )
    return Lengths(
        num_rows=overrides.num_rows or sum(drawn),
        pairs=pairs,
        mean=mean,
        alone=alone,
        longest=max(longest, key=lambda counts: counts.tokens),
        measured={item.name: len(item.rows) for item in sources if item.assumed is None},
        assumed={item.name: item.assumed for item in sources if item.assumed is not None},
    )


def _full(limit: int, rows: Sequence[Row], measure: Measure, overrides: Overrides, shared: bool) -> Counts:
    """Return the row that just fits `max_tokens`, its responses as they are on average."""
    changed = [measure.changed(row, overrides) for row in rows]
    response = min(round(fmean(length for row in changed for length in row.responses)), limit - 1)
    number = max(len(row.responses) for row in changed)
    filled = Row(limit - response, (response,) * number)
    return measure.counts(filled, shared=shared)


def _measured(
    source: Source,
    measure: Measure,
    plugins: PluginManager,
    overrides: Overrides,
    progress: Callable[[str], None],
) -> _Source:
    path = source.options.get("path")
    name = f"{source.name} ({path})" if path else source.name
    progress(name)
    try:
        dataset: Dataset = open_source(source, plugins)
    except (DataError, ConfigError) as error:
        kind: type[Dataset] = plugins.load("dataset", source.name)
        number = 2 if source.pairs != "together" else kind.responses_of(source.options)
        responses = AssumedResponses(number or len(ASSUMED.responses), number is not None)
        return _assumed(source, name, measure, overrides, responses, error)
    comparisons = [row for row in islice(dataset.read(), SAMPLE) if isinstance(row, Comparison)]
    rows: list[Row] = []
    reason = "it has none"
    for comparison in comparisons:
        try:
            rows.append(measure.row(comparison))
        except DataError as error:
            reason = str(error)
    if not rows:
        raise DataError(f"{name}: of its first {SAMPLE} rows none can be used: {reason}")
    shows = any(row.grids for row in rows[:1]) if source.multimodal is None else source.multimodal
    return _Source(name, dataset.count(), rows, shows)


def _assumed(
    source: Source,
    name: str,
    measure: Measure,
    overrides: Overrides,
    responses: AssumedResponses,
    error: Exception,
) -> _Source:
    num_rows = source.max_rows or overrides.num_rows
    if num_rows is None:
        raise ConfigError(f"{error}; to plan without the data, say how much there is by --num-rows") from None
    shows = measure.images is not None if source.multimodal is None else source.multimodal
    grids = (measure.images.grid(*ASSUMED_IMAGE),) if shows and measure.images else ()
    row = Row(ASSUMED.text_tokens, (ASSUMED.responses[0],) * responses.number, grids)
    return _Source(name, num_rows, [row], shows, responses)
