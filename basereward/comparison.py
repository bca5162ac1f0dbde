"""A comparison: one prompt, its images and videos, and the responses to it with their ranks."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, NamedTuple

from basereward.errors import DataError, shown
from basereward.media.image import Image
from basereward.media.limits import is_number
from basereward.media.video import Video
from basereward.message import (
    PLACEHOLDER,
    VIDEO_PLACEHOLDER,
    Message,
    identity_of,
    messages_of,
    place_media,
    with_tools,
)

FIELDS = (
    "id",
    "prompt",
    "tools",
    "images",
    "videos",
    "responses",
    "ranks",
    "ratings",
    "weight",
    "source",
    "meta",
)
KNOWN = frozenset(FIELDS)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses of a comparison, as indices; in a tie `chosen` is simply the first."""

    chosen: int
    rejected: int
    margin: float | None = None
    tie: bool = False


class Place(NamedTuple):
    """The file that a comparison was read from, and its line, or its row in a table; None where unknown."""

    file: str | None = None
    line: int | None = None

    def locate(self, error: DataError) -> DataError:
        """Return an error with this place, unless it has one."""
        return error.at(file=self.file, line=self.line)


NOWHERE = Place()
"""The place of a comparison that was not read from a file."""


@dataclass(frozen=True, init=False)
class Comparison:
    """One prompt with its images and N responses; N >= 2 with ranks to train on, N >= 1 to score.

    Args:
        prompt: A text, or messages as `Message` or `{"role", "content"}` mappings.
        responses: The N texts to compare.
        images: Images for the `<image>` placeholders of the prompt in their order; without placeholders
            they are put before the first user message's text.
        videos: Videos for the `<video>` placeholders, in the same way.
        tools: The tools that may be called, as transformers' chat templates take them, or their JSON text.
        ranks: [N], smaller is better, equal is a tie. Derived from `ratings` if these are given.
        ratings: [N], larger is better; the difference of two is the margin of their pair.
        weight: Weight of the comparison in the loss; >= 0.
        id: Names the row in reports.
        source: Names the data set in reports.
        meta: Anything else a benchmark needs.
        place: File and line of the comparison; not a part of its equality or of its row.

    Raises:
        DataError: When a field is wrong or contradicts another; it names the field.
    """

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    images: tuple[Image, ...] = ()
    videos: tuple[Video, ...] = ()
    ranks: tuple[float, ...] | None = None
    ratings: tuple[float, ...] | None = None
    weight: float = 1.0
    id: str = ""
    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False)
    place: Place = field(default=NOWHERE, compare=False)

    def __init__(
        self,
        prompt: str | Iterable[Message | Mapping[str, Any]],
        responses: Iterable[str],
        *,
        images: Iterable[object] = (),
        videos: Iterable[object] = (),
        tools: Sequence[Mapping[str, Any]] | str | None = None,
        ranks: Iterable[float] | None = None,
        ratings: Iterable[float] | None = None,
        weight: float = 1.0,
        id: str = "",
        source: str = "",
        meta: Mapping[str, Any] | None = None,
        place: Place = NOWHERE,
    ) -> None:
        responses = _responses(responses)
        known_ratings = _numbers(ratings, "ratings", len(responses))
        known_ranks = _numbers(ranks, "ranks", len(responses))
        if known_ranks is None and known_ratings is not None:
            known_ranks = tuple(
                float(sum(other > rating for other in known_ratings)) for rating in known_ratings
            )
        _check_identical(responses, known_ranks)
        _check_order(known_ranks, known_ratings)
        if not is_number(weight) or weight < 0:
            raise DataError(f"a weight is a finite number >= 0, not {shown(weight)}", field="weight")
        # Videos first, so that images without placeholders come before them.
        messages = with_tools(messages_of(prompt), tools)
        clips = [Video(video) for video in videos]
        messages = place_media(messages, clips, VIDEO_PLACEHOLDER, "video", responses)
        messages = place_media(messages, [Image(image) for image in images], PLACEHOLDER, "image", responses)
        values: dict[str, Any] = {
            "prompt": tuple(messages),
            "responses": responses,
            "images": tuple(image for message in messages for image in message.images),
            "videos": tuple(video for message in messages for video in message.videos),
            "ranks": known_ranks,
            "ratings": known_ratings,
            "weight": float(weight),
            "id": str(id),
            "source": str(source),
            "meta": dict(meta or {}),
            "place": place,
        }
        # At once, past the frozen class's own __setattr__: a data set makes millions of these.
        self.__dict__.update(values)

    def pairs(self) -> list[Pair]:
        """Return every pair of responses, with the better one first; ties are marked.

        Raises:
            DataError: When the comparison has no ranks.
        """
        if self.ranks is None:
            raise DataError(
                "the comparison has no ranks, so no response is known to be better", field="ranks"
            )
        pairs = []
        for first in range(len(self.responses)):
            for second in range(first + 1, len(self.responses)):
                tie = self.ranks[first] == self.ranks[second]
                better, worse = (
                    (first, second) if self.ranks[first] <= self.ranks[second] else (second, first)
                )
                margin = None if self.ratings is None else self.ratings[better] - self.ratings[worse]
                pairs.append(Pair(better, worse, margin, tie))
        return pairs

    def without_images(self) -> Comparison:
        """Return the same comparison without images and videos, as a control."""
        return self.replace(prompt=[message.with_content([message.text]) for message in self.prompt])

    def with_images(self, images: Sequence[Image]) -> Comparison:
        """Return the same comparison with other images, the first for the first, and so on round."""
        others = cycle(images)
        prompt = [
            message.with_content(
                [next(others) if isinstance(part, Image) else part for part in message.content]
            )
            for message in self.prompt
        ]
        return self.replace(prompt=prompt)

    def with_meta(self, **entries: Any) -> Comparison:
        """Return the same comparison with additional entries in `meta`."""
        return self.replace(meta={**self.meta, **entries})

    def replace(self, **changes: Any) -> Comparison:
        """Return a comparison with some of the constructor's arguments changed.

        The images and videos are those of the prompt's messages; others come with another `prompt`.

        Raises:
            DataError: As the constructor, such as for ranks of another number of responses.
        """
        values = {name: value for name, value in vars(self).items() if name not in ("images", "videos")}
        if unknown := changes.keys() - values:
            raise TypeError(f"replace() has no argument {min(unknown)!r}; arguments: {', '.join(values)}")
        return Comparison(**values | changes)

    def prompt_identity(self) -> tuple[Hashable, ...]:
        """Return all that the rewards of a response depend on besides the response; see `identity_of`."""
        return identity_of(self.prompt)

    @property
    def label(self) -> str:
        """Its file and line, or else its id, for messages and reports."""
        if self.place.file is not None:
            return f"{self.place.file}:{self.place.line}"
        return self.id or "a row without id"

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], *, place: Place = NOWHERE) -> Comparison:
        """Read a row of the format `basereward`; the caller resolves relative image paths.

        Raises:
            DataError: When a field is missing, unknown or wrong; it names the field.
        """
        if not row.keys() <= KNOWN:
            unknown = min(set(row) - KNOWN, key=str)
            raise DataError(f"unknown field; fields: {', '.join(FIELDS)}", field=str(unknown))
        for name in ("prompt", "responses"):
            if row.get(name) is None:
                raise DataError("is missing", field=name)
        given = {name: value for name, value in row.items() if value is not None}
        for name in ("images", "videos"):
            media = given.get(name, ())
            if isinstance(media, str | bytes) or not isinstance(media, Sequence):
                raise DataError(f"a list of {name} is needed, not {type(media).__name__}", field=name)
        return cls(**given, place=place)

    def to_dict(self) -> dict[str, Any]:
        """Return the row in the format `basereward`; images and videos must be files.

        Raises:
            DataError: When an image or video is only in memory, since JSON can't hold it.
        """
        prompt = []
        paths = []
        videos = []
        for message in self.prompt:
            text = ""
            for part in message.content:
                if isinstance(part, Image):
                    paths.append(_written(part, "images"))
                    text += PLACEHOLDER
                elif isinstance(part, Video):
                    videos.append(_written_video(part))
                    text += VIDEO_PLACEHOLDER
                else:
                    text += part
            prompt.append({"role": message.role, "content": text, **message.template_fields})
        tools = prompt[0].pop("tools", None)
        row: dict[str, Any] = {
            "id": self.id,
            "prompt": prompt,
            "images": paths,
            "responses": list(self.responses),
        }
        if tools is not None:
            row["tools"] = tools
        if videos:
            row["videos"] = videos
        if self.ranks is not None:
            row["ranks"] = list(self.ranks)
        if self.ratings is not None:
            row["ratings"] = list(self.ratings)
        if self.weight != 1.0:
            row["weight"] = self.weight
        return {**row, "source": self.source, "meta": dict(self.meta)}


def _responses(responses: Iterable[str]) -> tuple[str, ...]:
    if isinstance(responses, str) or not isinstance(responses, Iterable):
        raise DataError(f"a list of texts is needed, not {type(responses).__name__}", field="responses")
    texts = tuple(responses)
    if not texts:
        raise DataError("the list is empty; at least one response is needed", field="responses")
    for number, response in enumerate(texts):
        if not isinstance(response, str):
            raise DataError(f"is a {type(response).__name__}, not a text", field=f"responses[{number}]")
        if not response.strip():
            raise DataError("is empty", field=f"responses[{number}]")
    return texts


def _numbers(values: Iterable[float] | None, name: str, count: int) -> tuple[float, ...] | None:
    if values is None:
        return None
    try:
        numbers = tuple(values)
    except TypeError as error:
        raise DataError(f"is {values!r}, not a list of numbers", field=name) from error
    if len(numbers) != count:
        raise DataError(f"{len(numbers)} values for {count} responses", field=name)
    for number, value in enumerate(numbers):
        if not is_number(value):
            raise DataError(f"a finite number is needed, not {shown(value)}", field=f"{name}[{number}]")
    return tuple(float(value) for value in numbers)


def _check_order(ranks: Sequence[float] | None, ratings: Sequence[float] | None) -> None:
    """Refuse ratings that put a response above one of a better rank."""
    if ranks is None or ratings is None:
        return
    # Within a rank the highest rating first, so that no tie is taken for a contradiction.
    order = sorted(range(len(ranks)), key=lambda at: (ranks[at], -ratings[at]))
    lowest = order[0] if order else 0
    for at in order:
        if ratings[at] > ratings[lowest] and ranks[at] > ranks[lowest]:
            raise DataError(
                f"responses[{lowest}] has a better rank than responses[{at}], and a lower rating",
                field="ratings",
            )
        if ratings[at] < ratings[lowest]:
            lowest = at


def _check_identical(responses: tuple[str, ...], ranks: tuple[float, ...] | None) -> None:
    seen: dict[str, int] = {}
    for number, response in enumerate(responses):
        first = seen.setdefault(response, number)
        if ranks is not None and ranks[first] != ranks[number]:
            raise DataError(
                f"is identical to responses[{first}], but ranked differently", field=f"responses[{number}]"
            )


def _written(image: Image, field: str) -> str:
    if isinstance(image.source, bytes) or not hasattr(image.source, "as_posix"):
        raise DataError("an image in memory has no path to write; save it first", field=field)
    return str(image.source)


def _written_video(video: Video) -> object:
    if isinstance(video.source, bytes):
        raise DataError("a video in memory has no path to write; save it first", field="videos")
    is_list = isinstance(video.source, tuple)
    source = [_written(frame, "videos") for frame in video.frames] if is_list else str(video.source)
    return source if video.fps is None else {"video": source, "fps": video.fps}
