"""Messages: the turns of a prompt, with texts, images and videos, and all else that a response answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from basereward.errors import DataError
from basereward.media.image import Image, image_source
from basereward.media.video import Video
from basereward.storage.reading import parse_json

Part: TypeAlias = "str | Image | Video"

ROLES = ("system", "user", "assistant", "tool")

PLACEHOLDER = "<image>"
"""Stands in a prompt's text where the next of the row's images belongs."""

VIDEO_PLACEHOLDER = "<video>"
"""Stands in a prompt's text where the next of the row's videos belongs."""

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

PART_KEYS = {
    "text": ("text",),
    "image": ("image", "path", "bytes", "url"),
    "image_url": ("image_url",),
    "video": ("video", "fps"),
}
"""The keys that are read of a content part, by its type."""

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


def is_filled(value: object) -> bool:
    """Tell whether a field has a value; empty ones are columns of tables that other rows fill."""
    return value is not None and not (isinstance(value, str | list | dict) and not value)


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


def messages_of(prompt: str | Iterable[Message | Mapping[str, Any]]) -> list[Message]:
    """Return a prompt as messages: a text as one of the user, mappings as `Message`.

    Raises:
        DataError: When it is neither a text nor a list of messages.
    """
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
            value = parse_json(value)
        except ValueError as error:
            raise DataError(f"{name} is a text that is not JSON: {error}", field=field) from error
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


def place_media(
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
