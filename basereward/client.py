"""A client of `basereward serve`, which imports neither torch nor an HTTP package."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, overload

from basereward.errors import BaseRewardError
from basereward.storage.reading import parse_json

BUSY = (429, 503)
"""Statuses after which a request is sent again: of a server that is at its limit or going down."""

MAX_WAIT = 60.0
"""The most seconds that a busy server can ask to be left alone for."""

MAX_ANSWER_BYTES = 2**28
"""Bytes of an answer, which has some hundreds for each comparison."""

MAX_MESSAGE_BYTES = 2**16
"""Bytes of an error's answer."""


class ServerError(BaseRewardError):
    """A request that a server refused, or that didn't reach it.

    Attributes:
        reason: What the server says, or why there was no answer.
        status: The HTTP status; None where there was no answer.
        code: The problem's code, such as `image_not_base64`.
        param: The part of the request at fault, such as `items[2].responses[0]`.
    """

    def __init__(
        self, reason: str, *, status: int | None = None, code: str | None = None, param: str | None = None
    ) -> None:
        self.reason, self.status, self.code, self.param = reason, status, code, param
        super().__init__(reason if param is None else f"{param}: {reason}")


class Client:
    """Scores rows by asking a server.

    Args:
        url: The server's address, such as `http://localhost:8000`.
        api_key: A key of the server; None for none.
        model: The model that scores; None for the server's first.
        timeout_seconds: Limit of waiting for an answer.
        num_retries: Number of times that a request is sent again if the server is at its limit or can't be
            reached.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout_seconds: float = 300.0,
        num_retries: int = 5,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ServerError(f"{url!r} is no address of a server; write http://HOST:PORT")
        self.url = url.rstrip("/")
        self.model = model
        self.timeout_seconds = timeout_seconds
        self.num_retries = num_retries
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def __repr__(self) -> str:
        return f"Client({self.url!r}, model={self.model!r})"

    @overload
    def score(self, rows: Mapping[str, Any]) -> list[float]: ...

    @overload
    def score(self, rows: Iterable[Mapping[str, Any]]) -> list[list[float]]: ...

    def score(self, rows: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> list[float] | list[list[float]]:
        """Return the rewards of each row's responses; for a single row, only its rewards.

        Args:
            rows: Rows with `prompt`, a text or messages, and `responses`; or with `messages` whose last is
                the assistant's. `images` are paths, bytes, PIL images, base64 or `data:` URLs.

        Raises:
            ServerError: When the server can't be reached, or refuses a row, which the error names.
        """
        if isinstance(rows, Mapping):
            return self.score([rows])[0]
        items = [_item(row) for row in rows]
        body = {"items": items} if self.model is None else {"items": items, "model": self.model}
        rewards = dict(sorted(self._send("/v1/rewards", json.dumps(body).encode(), ("index", "rewards"))))
        if list(rewards) != list(range(len(items))):
            raise ServerError(f"{self.url} answers {len(rewards)} of {len(items)} rows")
        return list(rewards.values())

    @overload
    async def score_async(self, rows: Mapping[str, Any]) -> list[float]: ...

    @overload
    async def score_async(self, rows: Iterable[Mapping[str, Any]]) -> list[list[float]]: ...

    async def score_async(
        self, rows: Mapping[str, Any] | Iterable[Mapping[str, Any]]
    ) -> list[float] | list[list[float]]:
        """Return what `score` returns, without blocking the event loop; a thread waits for the answer."""
        return await asyncio.to_thread(self.score, rows)

    def models(self) -> list[str]:
        """Return the names of the server's models; the first scores requests that name none."""
        return [name for (name,) in self._send("/v1/models", None, ("id",))]

    def _send(self, path: str, body: bytes | None, keys: tuple[str, ...]) -> list[Any]:
        """Send a request, and return the values of these keys of each entry of its answer's `data`."""
        request = urllib.request.Request(self.url + path, body, self._headers)
        content = response_body(request, self.timeout_seconds, self.num_retries + 1)
        try:
            return [tuple(each[key] for key in keys) for each in parse_json(content.decode("utf-8"))["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(f"{request.full_url} answers as no server of BaseReward does") from error


def response_body(request: urllib.request.Request, timeout_seconds: float, num_tries: int) -> bytes:
    """Return the response body of a request, which is sent again while the server is busy or unreachable.

    Raises:
        ServerError: When the server refuses it or can't be reached.
    """
    opener = urllib.request.build_opener(_NoRedirects)
    for remaining in reversed(range(num_tries)):
        try:
            with opener.open(request, timeout=timeout_seconds) as answer:
                content: bytes = answer.read(MAX_ANSWER_BYTES + 1)
            if len(content) > MAX_ANSWER_BYTES:
                raise ServerError(f"{request.full_url} answers more than {MAX_ANSWER_BYTES:,} bytes")
            return content
        except urllib.error.HTTPError as error:
            if error.code not in BUSY or not remaining:
                raise _problem(error) from error
            wait = _seconds(error.headers.get("Retry-After"))
        except (OSError, HTTPException) as error:
            if not remaining:
                raise ServerError(f"{request.full_url} can't be reached: {error}") from error
            wait = 1.0
        time.sleep(wait)
    raise ServerError(f"num_tries is a number >= 1, not {num_tries}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would take the server's key along to wherever it leads."""

    def redirect_request(self, *request: Any) -> None:
        return None


def _seconds(retry_after: str | None) -> float:
    """Return how long to wait, of a header that may say anything, a date for instance."""
    if retry_after is None or not retry_after.isdecimal():
        return 1.0
    return min(float(retry_after), MAX_WAIT)


def _problem(error: urllib.error.HTTPError) -> ServerError:
    try:
        with error:
            problem = parse_json(error.read(MAX_MESSAGE_BYTES).decode("utf-8"))["error"]
        code, param = problem.get("code"), problem.get("param")
        return ServerError(str(problem["message"]), status=error.code, code=code, param=param)
    except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError):
        return ServerError(str(error.reason), status=error.code)


def _item(row: Mapping[str, Any]) -> dict[str, Any]:
    item = dict(row)
    if images := item.get("images"):
        if not isinstance(images, list | tuple):
            raise ServerError(f"images is a list, not a {type(images).__name__}; write [IMAGE]")
        item["images"] = [_image(image) for image in images]
    return item


def _image(image: object) -> str:
    """Return an image as base64; a text that is no file is taken for base64 or a `data:` URL."""
    if isinstance(image, bytes):
        return base64.b64encode(image).decode("ascii")
    if isinstance(image, Path) or (isinstance(image, str) and os.path.isfile(image)):
        try:
            return base64.b64encode(Path(image).read_bytes()).decode("ascii")
        except OSError as error:
            raise ServerError(f"image {image} can't be read: {error.strerror}") from error
    if isinstance(image, str):
        return image
    save = getattr(image, "save", None)  # of a PIL image, without importing PIL
    if save is None:
        raise ServerError(f"an image is a path, bytes, base64 or a PIL image, not a {type(image).__name__}")
    import io

    buffer = io.BytesIO()
    save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
