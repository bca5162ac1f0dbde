"""Pictures as rows name them: resolved against the file's directory, and looked for while the row is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from basereward.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

SOURCE_KEYS = ("image", "path", "bytes")
"""Keys under which a content part of type "image" may hold its picture."""


def located(image: Any, directory: Path, field: str) -> Any:
    """Return an image of a row with its path resolved; what is no path stays as it is.

    Args:
        image: A path, encoded bytes, or the mapping with `bytes` and `path` of Hugging Face datasets.
        directory: What a relative path starts from.
        field: The row's field, for the error.

    Raises:
        DataError: When there is no regular file at the path. The file is opened later, when it is used.
    """
    if isinstance(image, Mapping) and image.get("bytes") is None and isinstance(image.get("path"), str):
        image = image["path"]
    if not isinstance(image, str):
        if image is None:
            raise DataError("is null; leave the image out instead", field=field)
        return image
    if "://" in image[:16] or image.startswith("data:"):
        raise DataError(f"must be a file, not a URL ({image:.60}); download it first", field=field)
    path = directory / image
    try:
        is_file, exists = path.is_file(), path.exists()
    except OSError as error:
        raise DataError(f"can't look for {image:.60}: {error.strerror}", field=field) from error
    if not is_file:
        raise DataError(f"{path} is no regular file" if exists else f"there is no file {path}", field=field)
    return path


def located_list(images: Any, directory: Path, field: str = "images") -> Any:
    """Resolve every image of a list; what is no list stays as it is, for `Comparison` to refuse."""
    if images is None:
        return ()
    if isinstance(images, str | bytes) or not isinstance(images, Sequence):
        return images
    return [located(image, directory, f"{field}[{number}]") for number, image in enumerate(images)]


def located_messages(prompt: Any, directory: Path, field: str = "prompt") -> Any:
    """Resolve the images that stand within the messages of a prompt."""
    if not isinstance(prompt, Sequence) or isinstance(prompt, str | bytes):
        return prompt
    return [_message(message, directory, f"{field}[{number}]") for number, message in enumerate(prompt)]


def _message(message: Any, directory: Path, field: str) -> Any:
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, Sequence) or isinstance(content, str | bytes):
        return message
    return {**message, "content": [_part(part, directory, field) for part in content]}


def _part(part: Any, directory: Path, field: str) -> Any:
    if not isinstance(part, Mapping) or part.get("type") != "image":
        return part
    key = next((key for key in SOURCE_KEYS if part.get(key) is not None), None)
    return part if key is None else {"type": "image", "image": located(part[key], directory, field)}
