"""Sending requests to several addresses: a bounded number in flight, retries, and an end to them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from basereward.errors import ConfigError
from basereward.writers.chat_completions import WrongAnswer, error_message

if TYPE_CHECKING:
    import httpx2

RETRIED: Final = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which a request is sent again; after 500 and above it is too."""

REFUSED: Final = frozenset({401, 403})
"""Statuses of a key that is wrong, which no other request will do better with."""

FIRST_WAIT = 0.5
LONGEST_WAIT = 60.0
"""Seconds before the first retry, and the longest before a later one; doubled each time, with jitter."""

MAX_ANSWER_BYTES = 32 * 2**20

NAME = "basereward"


class Failure(Exception):
    """A request that has no answer; the reason is for the row.

    Args:
        reason: Why.
        status: The status of the last answer; None where there was none.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        self.reason = reason
        self.status = status
        super().__init__(reason)


@dataclass
class Address:
    """A base URL, the requests in flight to it, and the time until which it is left alone."""

    url: str
    num_in_flight: int = 0
    rests_until: float = 0.0


@dataclass(frozen=True)
class SendingLimits:
    """The limits of what is sent.

    Args:
        in_flight: Requests in flight to each URL at most.
        timeout_seconds: Of one try.
        deadline_seconds: After which a request, all tries together, has failed; and after which a server that
            has answered nothing at all is asked no more.
        max_tries: Tries of a request.
    """

    in_flight: int
    timeout_seconds: float
    deadline_seconds: float
    max_tries: int

    def __post_init__(self) -> None:
        for name in ("in_flight", "max_tries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is a number >= 1, not {getattr(self, name)}")
        for name in ("timeout_seconds", "deadline_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is a number > 0, not {getattr(self, name)}")


class HttpSender:
    """Posts JSON, in one event loop.

    Args:
        urls: Base URLs; each request goes to the one with the fewest in flight.
        key: The key that is sent; None for none.
        limits: Of what is sent.
        counts: Takes the number of `retries`.

    Attributes:
        slots: One is to be held by each request while it is prepared and in flight.
    """

    def __init__(
        self, urls: list[str], *, key: str | None, limits: SendingLimits, counts: Counter[str]
    ) -> None:
        self.addresses = [Address(url) for url in urls]
        self._key = key
        self._limits = limits
        self._counts = counts
        self.slots = asyncio.Semaphore(limits.in_flight * len(urls))
        self._last_answer = time.monotonic()
        self._refusal: ConfigError | None = None
        self._num_sent = 0
        self._client = _client(urls, limits)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def get(self, path: str) -> Any:
        """Return the JSON of an address."""
        return await self._until_answered("GET", path, None, self._limits.max_tries)

    async def post(self, path: str, body: dict[str, Any], *, max_tries: int | None = None) -> Any:
        """Return the JSON that answers a body.

        Raises:
            Failure: When there is none, with the reason.
            WrongAnswer: When the answer is no JSON, or one to another request.
            ConfigError: When the key is refused.
        """
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        return await self._until_answered("POST", path, content, max_tries or self._limits.max_tries)

    async def _until_answered(self, method: str, path: str, content: bytes | None, max_tries: int) -> Any:
        self._check_alive()
        deadline = time.monotonic() + self._limits.deadline_seconds
        number = 1
        while True:
            address = self._address()
            try:
                return await self._try(method, address, path, content, deadline)
            except _Retry as retry:
                now = time.monotonic()
                wait = max(retry.seconds, _backoff(number))
                address.rests_until = now + wait
                if any(each.rests_until <= now for each in self.addresses):
                    wait = 0.0  # another one is tried at once
                if number == max_tries or now + wait > deadline:
                    tries = "1 try" if number == 1 else f"{number} tries"
                    raise Failure(f"{retry.reason} ({tries})", retry.status) from None
            number += 1
            self._counts["retries"] += 1
            await asyncio.sleep(wait)

    async def _try(
        self, method: str, address: Address, path: str, content: bytes | None, deadline: float
    ) -> Any:
        import httpx2

        name = f"{NAME}-{id(self):x}-{self._num_sent}"
        self._num_sent += 1
        headers = {"Content-Type": "application/json", "X-Request-Id": name}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        address.num_in_flight += 1
        seconds = max(0.001, min(self._limits.timeout_seconds, deadline - time.monotonic()))
        try:
            async with (
                asyncio.timeout(seconds),
                self._client.stream(method, address.url + path, content=content, headers=headers) as answer,
            ):
                body = bytearray()
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise WrongAnswer(f"the answer is longer than {MAX_ANSWER_BYTES:,} bytes")
        except TimeoutError:
            raise _Retry(f"{address.url} has not answered within {seconds:.3g} s") from None
        except httpx2.TransportError as error:
            kind = type(error).__name__
            raise _Retry(f"{address.url}: {kind}{f': {error}' if str(error) else ''}") from None
        except httpx2.DecodingError as error:
            raise WrongAnswer(f"the answer can't be decoded: {error}") from None
        finally:
            address.num_in_flight -= 1
        if answer.status_code < 500 and answer.status_code not in RETRIED:
            self._last_answer = time.monotonic()
        return self._json_of(answer, bytes(body), name, address.url)

    def _json_of(self, answer: httpx2.Response, body: bytes, name: str, url: str) -> Any:
        status = answer.status_code
        echoed = answer.headers.get("X-Request-Id", name)
        if echoed.startswith(f"{NAME}-") and echoed != name:
            raise WrongAnswer("the answer is one to another request")
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = body[:200].decode("utf-8", "replace")
            if status < 300:
                raise WrongAnswer(f"the answer is no JSON: {error_message(content)}") from None
        if status < 300:
            return content
        said = error_message(content)
        if self._key:
            said = said.replace(self._key, "***")
        if status in REFUSED:
            self._refusal = ConfigError(
                f"{url} refuses the key ({status}): {said}; set the environment variable that key_variable "
                "names"
            )
            raise self._refusal
        if status in RETRIED or status >= 500:
            raise _Retry(f"{url} answers {status}: {said}", _seconds(answer.headers), status)
        raise Failure(f"{url} answers {status}: {said}", status)

    def _check_alive(self) -> None:
        """Refuse to send where the key was refused, or the servers have answered nothing for too long."""
        if self._refusal is not None:
            raise self._refusal
        silent = time.monotonic() - self._last_answer
        if silent > self._limits.deadline_seconds:
            raise Failure(f"was not sent: the server has answered nothing for {silent:,.0f} s")

    def _address(self) -> Address:
        now = time.monotonic()
        rested = [each for each in self.addresses if each.rests_until <= now] or self.addresses
        return min(rested, key=lambda each: each.num_in_flight)


class _Retry(Exception):
    """A try that failed in a way that another one may cure."""

    def __init__(self, reason: str, seconds: float = 0.0, status: int | None = None) -> None:
        self.reason = reason
        self.seconds = seconds
        self.status = status
        super().__init__(reason)


def is_loopback(url: str) -> bool:
    """Tell whether a URL leads to this machine."""
    import ipaddress

    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _client(urls: list[str], limits: SendingLimits) -> httpx2.AsyncClient:
    import httpx2

    num = limits.in_flight * len(urls)
    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(limits.timeout_seconds, connect=min(10.0, limits.timeout_seconds)),
        limits=httpx2.Limits(max_connections=num, max_keepalive_connections=num),
        # A redirect would take key and images along to wherever it leads.
        follow_redirects=False,
        # A proxy is another host: what is meant for this machine goes past it.
        trust_env=not all(map(is_loopback, urls)),
    )


def _backoff(number: int) -> float:
    """Return the seconds before a retry, doubled with each, times 0.5 to 1.5."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (number - 1)) * random.uniform(0.5, 1.5)


def _seconds(headers: httpx2.Headers) -> float:
    """Return how long a server asks to be left alone, in seconds or until a date."""
    text = str(headers.get("Retry-After", ""))
    try:
        seconds = float(text)
        return max(0.0, seconds)
    except ValueError:
        pass
    try:
        date = float(parsedate_to_datetime(text).timestamp())
    except (ValueError, TypeError):
        return 0.0
    return max(0.0, date - time.time())
