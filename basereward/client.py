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
from pathlib import Path
from typing import Any, overload

from basereward.errors import BaseRewardError

RETRIED = (429, 503)
"""Statuses of a server that is at its limit, which says when to come again."""


class ServerError(BaseRewardError):
    """A request that a server refused, or that didn't reach it.

    Attributes:
        status: The HTTP status; None where there was no answer.
        code: The problem's code, such as `image_not_base64`.
        param: The part of the request at fault, such as `items[2].responses[0]`.
    """

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, param: str | None = None
    ) -> None:
        self.status, self.code, self.param = status, code, param
        super().__init__(message if param is None else f"{param}: {message}")


class Client:
    """Scores rows by a server.

    Args:
        url: The server's address, such as `http://localhost:8000`.
        api_key: A key that the server takes; None for none.
        model: The model that scores; None for the server's first.
        timeout_seconds: How long to wait for an answer.
        num_retries: How often a request is sent again to a server that is at its limit.
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
        """Return the rewards of each row's responses; of one row, its rewards alone.

        Args:
            rows: Rows with `prompt`, a text or messages, and `responses`; or with `messages` whose last is
                the assistant's. `images` are paths, bytes, PIL images, base64 or `data:` URLs.

        Raises:
            ServerError: When the server can't be reached, or refuses a row, which it names.
        """
        if isinstance(rows, Mapping):
            return self.score([rows])[0]
        items = [_item(row) for row in rows]
        body = {"items": items} if self.model is None else {"items": items, "model": self.model}
        answer = self._post("/v1/rewards", body)
        return [item["rewards"] for item in answer["data"]]

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
        return [model["id"] for model in self._send(urllib.request.Request(f"{self.url}/v1/models"))["data"]]

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        data = json.dumps(body).encode()
        return self._send(urllib.request.Request(self.url + path, data, method="POST"))

    def _send(self, request: urllib.request.Request) -> Any:
        for name, value in self._headers.items():
            request.add_header(name, value)
        for attempt in range(self.num_retries + 1):
            try:
                with urllib.request.urlopen(request, timeout=self.timeout_seconds) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code not in RETRIED or attempt == self.num_retries:
                    raise _problem(error) from None
                time.sleep(float(error.headers.get("Retry-After") or 1))
                error.close()
            except (OSError, ValueError) as error:
                reason = getattr(error, "reason", None) or error
                raise ServerError(f"{self.url} gives no answer: {reason}") from error
        raise AssertionError("the last attempt returns or raises")


def _problem(error: urllib.error.HTTPError) -> ServerError:
    with error:
        try:
            problem = json.load(error)["error"]
            return ServerError(
                problem["message"], status=error.code, code=problem.get("code"), param=problem.get("param")
            )
        except (ValueError, KeyError, TypeError):
            return ServerError(f"the server answers {error.code} {error.reason}", status=error.code)


def _item(row: Mapping[str, Any]) -> dict[str, Any]:
    item = dict(row)
    if item.get("images"):
        item["images"] = [_image(image) for image in item["images"]]
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
