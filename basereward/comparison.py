"""A comparison: one prompt, its images and videos, and the responses to it with their ranks."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeAlias

from basereward.errors import DataError, shown
from basereward.media.image import Image, image_source
from basereward.media.limits import is_number
from basereward.media.video import Video

Part: TypeAlias = "str | Image | Video"

ROLES = ("system", "user", "assistant", "tool")
PLACEHOLDER = "<image>"
"""Stands in a prompt's text where the next of the row's images belongs."""
VIDEO_PLACEHOLDER = "<video>"
"""Stands in a prompt's text where the next of the row's videos belongs."""

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

TEMPLATE_KEYS = {
    "tool_calls": "the calls of tools that a turn of the assistant makes",
    "tool_call_id": "the call that a turn of a tool answers",
    "name": "the name of a turn's speaker, or of the tool that answers",
    "reasoning_content": "what the assistant thought before its text",
    "tools": "in the first message: the tools that may be called in the conversation",
}
"""Keys of a message besides role and content, which the chat template is given as by transformers."""

TEXT_KEYS = frozenset(("role", "content"))
MESSAGE_KEYS = frozenset(("role", "content", *TEMPLATE_KEYS)) - {"tools"}
"""The keys that are read of a message of a row."""

IGNORED_MESSAGE_KEYS = frozenset(
    ("id", "message_id", "turn", "timestamp", "created_at", "model", "language", "toxic", "redacted")
)
"""Keys of a message that say where it is from, and nothing that a response answers."""

IGNORED_PART_KEYS = frozenset(("cache_control", "index"))
"""Keys of a content part that are for the servers of other models."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: the role of its speaker, and texts, images and videos in their order.

    Args:
        role: One of `ROLES`.
        content: Texts, images and videos.
        given: What else the chat template is given, by the names of `TEMPLATE_KEYS`; kept as JSON text. A
            `content` of null in it stands for a message that has calls of tools and no content.
    """

    role: str
    content: tuple[Part, ...]
    given: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise DataError(f"unknown role {self.role!r}; roles: {', '.join(ROLES)}", field="prompt")
        given: Any = self.given
        if isinstance(given, Mapping):
            object.__setattr__(self, "given", json_text(given))
        content: Any = self.content
        if isinstance(content, str | Image | Video):
            content = (content,)
        elif isinstance(content, Mapping) or not isinstance(content, Iterable):
            kind = type(content).__name__
            raise DataError(f"a message's content is a text or a list of parts, not {kind}", field="prompt")
        object.__setattr__(self, "content", tuple(_part(part) for part in content))

    @property
    def given_names(self) -> str:
        """The names of what else the chat template is given, for errors."""
        return ", ".join(name for name in self.template_fields if name != "content")

    @property
    def template_fields(self) -> dict[str, Any]:
        """All else that the chat template is given, by name."""
        return json.loads(self.given) if self.given else {}

    def with_content(self, content: Iterable[Part]) -> Message:
        """Return the same message with another content."""
        return Message(self.role, tuple(content), self.given)

    @property
    def text(self) -> str:
        """The texts alone, joined."""
        return "".join(part for part in self.content if isinstance(part, str))

    @property
    def images(self) -> tuple[Image, ...]:
        """The images alone."""
        return tuple(part for part in self.content if isinstance(part, Image))

    @property
    def videos(self) -> tuple[Video, ...]:
        """The videos alone."""
        return tuple(part for part in self.content if isinstance(part, Video))


def identity_of(
    prompt: Sequence[Message],
    *,
    text: Callable[[str], str] = str,
    image: Callable[[Image], str] = lambda image: image.digest,
    video: Callable[[Video], str] = lambda video: video.digest,
) -> tuple[Hashable, ...]:
    """Return all of a prompt that an answer depends on: equal for equal prompts alone.

    Roles, texts, images and videos, each in its place, and whatever else a `Message` has. It is hashable, and
    JSON can hold it.

    Args:
        prompt: Messages.
        text: Gives texts that count as the same one form, such as one case.
        image: Gives images that count as the same one name; by default those of the same digest.
        video: Likewise of videos, whose frames a second count besides.

    Raises:
        DataError: When an image or a video can't be read.
    """

    def part(value: Part) -> Hashable:
        if isinstance(value, Image):
            return ("image", image(value))
        if isinstance(value, Video):
            return ("video", video(value), value.fps)
        return ("text", text(value))

    # By its fields, so that one that is added counts.
    return tuple(
        tuple(
            tuple(part(value) for value in message.content)
            if each.name == "content"
            else getattr(message, each.name)
            for each in fields(Message)
        )
        for message in prompt
    )


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
        videos: Videos, likewise for the `<video>` placeholders.
        tools: The tools that may be called, as transformers' chat templates take them, or their JSON text.
        ranks: [N], smaller is better, equal is a tie. Follows from `ratings` where those are given.
        ratings: [N], larger is better; the difference of two is the margin of their pair.
        weight: How much the comparison counts in the loss; >= 0.
        id: Names the row in reports.
        source: Names the data set in reports.
        meta: Anything else a benchmark needs.
        place: Where it was read; no part of the comparison, of its equality or of its row.

    Raises:
        DataError: Naming the field, when any of these contradicts another or itself.
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
        if not is_number(weight) or weight < 0:
            raise DataError(f"a weight is a finite number >= 0, not {shown(weight)}", field="weight")
        # Videos first, so that images without placeholders come before them.
        messages = with_tools(_messages(prompt), tools)
        clips = [Video(video) for video in videos]
        messages = _place(messages, clips, VIDEO_PLACEHOLDER, "video", responses)
        messages = _place(messages, [Image(image) for image in images], PLACEHOLDER, "image", responses)
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
        """Return every pair of responses, better one first; ties are marked.

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
        """Return the same comparison without images and videos: the control that shows their worth."""
        return self.replace(prompt=[message.with_content([message.text]) for message in self.prompt])

    def with_meta(self, **entries: Any) -> Comparison:
        """Return the same comparison with these entries in its meta."""
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
        """Read a row of our own format; relative image paths are the caller's to resolve.

        Raises:
            DataError: Naming the field that is missing, unknown or wrong.
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
        """Return the row of our own format; images and videos must be files.

        Raises:
            DataError: When one is in memory only, since JSON can't hold it.
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


PART_KEYS = {
    "text": ("text",),
    "image": ("image", "path", "bytes", "url"),
    "image_url": ("image_url",),
    "video": ("video", "fps"),
}
"""The keys that are read of a content part, by its type."""


def is_filled(value: object) -> bool:
    """Tell whether a field has a value; empty ones are columns of tables that other rows fill."""
    return value is not None and value != "" and value != [] and value != {}


def refuse_unread(
    given: Mapping[str, Any], read: Container[str], ignored: Container[str], of: str, field: str | None = None
) -> None:
    """Refuse a mapping with a filled key that is neither read nor known to say nothing of the answer.

    Args:
        given: A row, a message or a content part.
        read: The keys that are read.
        ignored: The keys without which it means the same.
        of: Names the kind of mapping, for the error.
        field: The field that the error is of; None for the key itself.

    Raises:
        DataError: Naming the key.
    """
    if isinstance(read, frozenset) and given.keys() <= read:
        return
    for key, value in given.items():
        if key not in read and key not in ignored and is_filled(value):
            raise DataError(
                f"the key {key!r} of {of} is neither read nor known to say nothing of the answer",
                field=field or str(key),
            )


def _part(part: object) -> Part:
    """Read one piece of content: a text, an image, or the typed mapping of chat formats."""
    if isinstance(part, str | Image | Video):
        return part
    if isinstance(part, Mapping):
        kind = part.get("type")
        refuse_unread(
            part, {"type", *PART_KEYS.get(str(kind), ())}, IGNORED_PART_KEYS, "a content part", "prompt"
        )
        if kind == "text" and isinstance(part.get("text"), str):
            return str(part["text"])
        if kind in ("image", "image_url"):
            source = image_source(part)
            # A bare {"type": "image"} takes the next of the row's images, as in TRL's format.
            return PLACEHOLDER if source is None else Image(source)
        if kind == "video":
            return VIDEO_PLACEHOLDER if part.get("video") is None else Video(part["video"], part.get("fps"))
    raise DataError(
        'content is a text or a list of {"type": "text", "text": ...}, {"type": "image", "image": ...} and '
        f'{{"type": "video", "video": ...}} parts, not {part!r:.80}',
        field="prompt",
    )


def _messages(prompt: str | Iterable[Message | Mapping[str, Any]]) -> list[Message]:
    if isinstance(prompt, str):
        return [Message("user", (prompt,))]
    if not isinstance(prompt, Iterable) or isinstance(prompt, Mapping | bytes):
        raise DataError(
            f"a text or a list of messages is needed, not {type(prompt).__name__}", field="prompt"
        )
    messages = []
    for entry in prompt:
        if isinstance(entry, Mapping):
            entry = _message(entry)
        elif not isinstance(entry, Message):
            raise DataError(f"a message is a mapping or Message, not {type(entry).__name__}", field="prompt")
        messages.append(entry)
    if not messages:
        raise DataError("the list of messages is empty", field="prompt")
    return messages


def _message(entry: Mapping[str, Any]) -> Message:
    if entry.keys() == TEXT_KEYS and entry["content"] is not None:  # as nearly all are
        return Message(entry["role"], entry["content"])
    refuse_unread(entry, MESSAGE_KEYS, IGNORED_MESSAGE_KEYS, "a message", "prompt")
    content = entry.get("content")
    given = {key: entry[key] for key in TEMPLATE_KEYS if is_filled(entry.get(key))}
    if isinstance(given.get("tool_calls"), str):  # as tables hold them
        given["tool_calls"] = _objects(given["tool_calls"], "prompt", "'tool_calls' of a message")
    if "role" not in entry or (content is None and "tool_calls" not in given):
        raise DataError(f"a message has 'role' and 'content'; this one has {sorted(entry)}", field="prompt")
    if content is None:
        given["content"] = None
    return Message(entry["role"], () if content is None else content, json_text(given))


def json_text(given: Mapping[str, Any]) -> str:
    """Return what a chat template is given of a message, as `Message` keeps it.

    Raises:
        DataError: When JSON can't hold it.
    """
    try:
        return json.dumps(dict(given), ensure_ascii=False, allow_nan=False) if given else ""
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{', '.join(given)} of a message: {error}", field="prompt") from error


def _objects(value: Any, field: str, name: str) -> list[Any]:
    """Return a list of objects, which may be JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name} is a text that is not JSON", field=field) from error
    if not isinstance(value, list | tuple) or not all(isinstance(entry, Mapping) for entry in value):
        raise DataError(f"{name} is a list of objects, or its JSON text", field=field)
    return list(value)


def with_tools(messages: list[Message], tools: Sequence[Mapping[str, Any]] | str | None) -> list[Message]:
    """Put tools into the first of some messages, so that they are part of the prompt wherever it goes.

    Raises:
        DataError: When they are no list of objects, nor its JSON text.
    """
    if not tools:
        return messages
    tools = _objects(tools, "tools", "this")
    first, *others = messages
    given = {**first.template_fields, "tools": tools}
    return [Message(first.role, first.content, json_text(given)), *others]


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


def _check_identical(responses: tuple[str, ...], ranks: tuple[float, ...] | None) -> None:
    seen: dict[str, int] = {}
    for number, response in enumerate(responses):
        first = seen.setdefault(response, number)
        if ranks is not None and ranks[first] != ranks[number]:
            raise DataError(
                f"is identical to responses[{first}], but ranked differently", field=f"responses[{number}]"
            )


def _place(
    messages: list[Message],
    media: Sequence[Image | Video],
    placeholder: str,
    kind: str,
    responses: Sequence[str],
) -> list[Message]:
    """Put the row's images or videos where the prompt says, or before the first user message's text."""
    texts = [part for message in messages for part in message.content if isinstance(part, str)]
    slots = sum([text.count(placeholder) for text in texts])
    if slots == 0 and not media:
        return messages
    waiting = iter(media)
    if slots == 0:
        marked = next((at for at, text in enumerate(responses) if placeholder in text), None)
        if marked is not None:
            raise DataError(
                f"has a {placeholder} placeholder and the prompt none, but a response is a text and can't "
                f"hold the row's {kind}s",
                field=f"responses[{marked}]",
            )
        user = next((number for number, message in enumerate(messages) if message.role == "user"), None)
        if user is None:
            raise DataError(f"there is no user message to show the {kind}s in", field=f"{kind}s")
        leading = messages[user].with_content([*media, *messages[user].content])
        return [*messages[:user], leading, *messages[user + 1 :]]
    if slots != len(media):
        raise DataError(
            f"the prompt has {slots} {placeholder} placeholder{'s' * (slots != 1)} "
            f"and the row {len(media)} {kind}{'s' * (len(media) != 1)}",
            field=f"{kind}s",
        )
    placed = []
    for message in messages:
        parts: list[Part] = []
        for part in message.content:
            if not isinstance(part, str):
                parts.append(part)
                continue
            for number, text in enumerate(part.split(placeholder)):
                if number:
                    parts.append(next(waiting))
                if text:
                    parts.append(text)
        placed.append(message.with_content(parts))
    return placed


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
