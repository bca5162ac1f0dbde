"""Download images from allowed hosts, once, into a cache."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from basereward.errors import DataError
from basereward.media.limits import MAX_BYTES
from basereward.storage.atomic import write_bytes

TIMEOUT_SECONDS = 10
"""Seconds that a host may be silent."""
MAX_SECONDS = 60
"""Seconds that the download of an image may take in all, redirects and headers included."""
BLOCK = 1 << 16


def fetched(url: str, hosts: Collection[str], field: str) -> Path:
    """Return the file of a URL's content, downloading it unless it is in the cache.

    Args:
        url: The URL, http or https.
        hosts: Hosts that it and all redirects must be of; a port counts where one is written.
        field: The row's field, for the error.

    Raises:
        DataError: When the host is not allowed, does not answer in time, or gives more than `MAX_BYTES`.
    """
    check_host(url, hosts, field)
    path = cache_directory() / hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()
    if path.exists():
        return path
    content = _download(url, hosts, field)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    return path


def check_host(url: str, hosts: Collection[str], field: str) -> None:
    """Refuse a URL whose host is not allowed.

    Raises:
        DataError: Saying which option allows it.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, (parts.hostname or "").lower()
    except ValueError as error:
        raise DataError(f"is no URL: {url:.60}", field=field) from error
    if parts.scheme not in ("http", "https") or not host:
        raise DataError(f"must be a file, or a URL of http or https, not {url:.60}", field=field)
    if not {host, f"{host}:{port}"} & set(hosts):
        raise DataError(
            f"is a URL ({url:.60}), and nothing is fetched from {host}; allow it by the option "
            f"media_hosts = [{host!r}], or download the file",
            field=field,
        )


def cache_directory() -> Path:
    """Return the directory of downloaded files."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "basereward" / "media"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to allowed hosts only."""

    def __init__(self, hosts: Collection[str], field: str) -> None:
        self.hosts = hosts
        self.field = field

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        fp.close()  # urllib would read all of its body, however long that is
        check_host(newurl, self.hosts, self.field)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Http(urllib.request.HTTPHandler):
    """Opens connections whose answers must have come by a time."""

    def __init__(self, end: float) -> None:
        super().__init__()
        self.end = end

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_until(self.end, HTTPConnection), req)


class _Https(urllib.request.HTTPSHandler):
    """The same over TLS."""

    def __init__(self, end: float) -> None:
        super().__init__()
        self.end = end

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_until(self.end, HTTPSConnection), req)


class _Response(HTTPResponse):
    """A response of which every byte, those of its headers too, must have come by a time."""

    def __init__(self, end: float, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_Socket(self.fp, sock, end))


class _Socket(io.RawIOBase):
    """Reads a socket until a time."""

    def __init__(self, file: io.BufferedReader, sock: socket.socket, end: float) -> None:
        self.file = file
        self.sock = sock
        self.end = end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        remaining = self.end - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self.sock.settimeout(min(remaining, TIMEOUT_SECONDS))
        return self.file.readinto1(buffer)

    def close(self) -> None:
        self.file.close()
        super().close()


def _until(end: float, kind: type[HTTPConnection]) -> Callable[..., HTTPConnection]:
    def connection(host: str, **options: Any) -> HTTPConnection:
        connection = kind(host, **options)
        connection.response_class = partial(_Response, end)  # type: ignore[assignment]
        return connection

    return connection


def _download(url: str, hosts: Collection[str], field: str) -> bytes:
    end = time.monotonic() + MAX_SECONDS
    opener = urllib.request.build_opener(_Redirects(hosts, field), _Http(end), _Https(end))
    request = urllib.request.Request(url, headers={"User-Agent": "basereward"})
    content = bytearray()
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            while block := answer.read1(BLOCK):
                content += block
                if len(content) > MAX_BYTES:
                    raise DataError(f"{url:.60} has more than the {MAX_BYTES:,} bytes allowed", field=field)
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"{url:.60} can't be fetched: the host answers {error.code}", field=field) from error
    except (OSError, HTTPException, ValueError) as error:
        if time.monotonic() >= end:
            raise DataError(f"{url:.60} took more than {MAX_SECONDS} seconds", field=field) from error
        raise DataError(f"{url:.60} can't be fetched", field=field) from error
    return bytes(content)
