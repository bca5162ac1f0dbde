"""The writer `endpoint`: a server that is asked many requests at once and none of them twice."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from basereward.errors import ConfigError, DataError
from basereward.extras import install_command
from basereward.protocols import Writer
from basereward.writers.chat_api import ChatApi
from basereward.writers.chat_completions import WrongAnswer
from basereward.writers.completion_cache import CompletionCache, key_of
from basereward.writers.decision_api import DecisionApi
from basereward.writers.http_sender import Failure, HttpSender, SendingLimits, is_loopback
from basereward.writers.loop_thread import LoopThread, gather_all
from basereward.writers.probe import served_model
from basereward.writers.request import Completion, Request
from basereward.writers.spending import Spending, estimated_tokens

ApiName = Literal["chat", "any-decisions", "decisions", "systemone"]


class JudgeApi(Protocol):
    """An API of a judge's server: bodies of requests, and completions of answers."""

    @property
    def takes_options(self) -> bool:
        """Whether it is asked about the options of a request, and about nothing else."""

    @property
    def cache_key(self) -> tuple[str, ...]:
        """Marks of its answers in a cache, by which they differ from those of other APIs."""

    def path(self, capabilities: Any) -> str:
        """Return the path of requests, below the base URL."""

    def body(
        self, request: Request, model: str, capabilities: Any, extra: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the body of a request."""

    def completion(self, answer: Any, request: Request) -> Completion:
        """Return the completion of an answer."""

    async def probe(self, sender: HttpSender, model: str, extra: dict[str, Any], *, may_upload: bool) -> Any:
        """Return what a server can do, by asking it; its `images` tells whether it reads any."""


class Endpoint(Writer):
    """A server of OpenAI's chat completions: vLLM, SGLang, llama.cpp, transformers serve, or a provider; or
    of typed decisions, `/v1/decisions` and `/v1/systemone`, which need no template.

    Args:
        urls: Base URLs of one model's servers; "/v1" is added where there is no path.
        model: The model's name there; None for the only one that is served.
        api: `chat` for chat completions; `decisions` or `systemone` for these, `any-decisions` for the first
            of them that the server knows.
        key_variable: The environment variable that holds the key; None sends none.
        in_flight: Requests in flight to each URL at most.
        timeout_seconds: Of one try.
        deadline_seconds: Of a request, with all its tries.
        max_tries: Tries of a request; 408, 409, 425, 429, 5xx and dropped connections are tried again.
        cache: A directory that keeps each completion, so that a run that is started again goes on where it
            stopped; None for none.
        allow_upload: Whether images may leave this machine.
        continues: Whether the server goes on with a text that is begun (`continue_final_message`), as vLLM
            and transformers do.
        prompt_price: Of a million tokens that are read, in any currency.
        price: Of a million tokens that are written.
        max_cost: The most that may be spent in a run; requests beyond it fail and are not sent.
        extra: Further fields of every request, such as `chat_template_kwargs`.
    """

    def __init__(
        self,
        *,
        urls: tuple[str, ...] = ("http://127.0.0.1:8000/v1",),
        model: str | None = None,
        api: ApiName = "chat",
        key_variable: str | None = None,
        in_flight: int = 32,
        timeout_seconds: float = 120.0,
        deadline_seconds: float = 600.0,
        max_tries: int = 6,
        cache: Path | None = None,
        allow_upload: bool = False,
        continues: bool = False,
        prompt_price: float = 0.0,
        price: float = 0.0,
        max_cost: float | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        if not urls:
            raise ConfigError("urls names no server; give one or more base URLs")
        if find_spec("httpx2") is None:
            raise ConfigError(f"writer 'endpoint' needs httpx2: run {install_command('judge')}")
        self.urls = [_base_url(url) for url in urls]
        self.model = model
        self.allow_upload = allow_upload
        self.continues = continues
        self.extra = dict(extra or {})
        self.spending = Spending(prompt_price, price, max_cost)
        self.counts: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.capabilities: Any = None
        self._api: JudgeApi = (
            ChatApi() if api == "chat" else DecisionApi(None if api == "any-decisions" else api)
        )
        self._cache = None if cache is None else CompletionCache(cache)
        self._key_variable = key_variable
        self._limits = SendingLimits(in_flight, timeout_seconds, deadline_seconds, max_tries)
        self._pending: dict[str, asyncio.Future[Completion]] = {}
        self._probing = threading.Lock()
        self._counting = threading.Lock()
        self._loop: LoopThread[HttpSender] = LoopThread(self._sender)

    @property
    def requests_at_once(self) -> int:
        """Several times the requests in flight, so that none waits for the last ones of the others."""
        return 4 * self._limits.in_flight * len(self.urls)

    @property
    def remote_urls(self) -> list[str]:
        """The base URLs that lead to other machines."""
        return [url for url in self.urls if not is_loopback(url)]

    @property
    def takes_options(self) -> bool:
        """Whether it is a server of decisions, which asks which of the options is better by itself."""
        return self._api.takes_options

    @property
    def statistics(self) -> Mapping[str, float]:
        """Requests by what became of them, and what they took."""
        names = ("requests", "cached", "failed", "retries", "damaged_cache_entries")
        if self._cache is not None:
            self.counts["damaged_cache_entries"] = self._cache.num_damaged
        return {
            **{name: self.counts[name] for name in names if self.counts[name]},
            **(self.spending.statistics() if self.counts["requests"] else {}),
        }

    @property
    def facts(self) -> Mapping[str, str]:
        """The model by the name that is asked for and those that answered; the server's abilities."""
        facts = {"judge": self.model or ""}
        if self.served:
            names = [f"{name} ({num})" for name, num in self.served.items()]
            facts["answered_by"] = names[0].rpartition(" (")[0] if len(names) == 1 else ", ".join(names)
        if len(self.served) > 1:
            facts["warning"] = "the server has changed its model during the run"
        if self.capabilities is not None:
            facts["server"] = str(self.capabilities)
        return facts

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        """Return a completion for each request, in their order; from the cache, where it was answered before.

        Raises:
            ConfigError: When no request can be answered: the server can't be reached, or refuses the key.
        """
        written = [self._refused(request) for request in requests]
        missing = {}
        if not all(written):
            self._settle_model()
        for number, request in enumerate(requests):
            if written[number] is None:
                try:
                    key = self._key(request)
                except DataError as error:
                    written[number] = Completion.failed(str(error))
                    continue
                written[number] = self._cached(key)
                if written[number] is None:
                    missing[number] = key
        if missing:
            self._settle_capabilities()
            answered = self._loop.run(
                lambda sender: gather_all(
                    [self._answer(sender, requests[number], key) for number, key in missing.items()]
                )
            )
            for number, completion in zip(missing, answered, strict=True):
                written[number] = completion
        texts = [each or Completion.failed("was not sent") for each in written]
        with self._counting:
            self.counts["failed"] += sum(each.ending == "failed" for each in texts)
        return texts

    def estimate(self, requests: Sequence[Request]) -> dict[str, float]:
        """Return the requests, how many of them are cached, and the tokens and the price of the others."""
        num_cached, num_prompt_tokens, num_tokens = 0, 0.0, 0.0
        for request in requests:
            is_cached = False
            if self.model is not None and self._cache is not None:
                is_cached = self._cache.get(self._key(request)) is not None
            num_cached += is_cached
            if not is_cached:
                prompt_tokens, tokens = estimated_tokens(request)
                num_prompt_tokens += prompt_tokens
                num_tokens += tokens
        return {
            "requests": len(requests),
            "cached": num_cached,
            "prompt_tokens": num_prompt_tokens,
            "tokens": num_tokens,
            "cost": self.spending.cost_of(num_prompt_tokens, num_tokens),
        }

    def _refused(self, request: Request) -> Completion | None:
        """Return the failure of a request that may not be sent."""
        if request.has_images and self.remote_urls and not self.allow_upload:
            return Completion.failed(
                f"has an image, and {urlsplit(self.remote_urls[0]).hostname} is another machine; allow it by "
                "--allow-upload, or allow_upload = true of the writer"
            )
        if self.takes_options and not request.options:
            return Completion.failed(
                'is no question about responses, and a server of decisions writes no text; set api = "chat"'
            )
        if request.beginning and not self.continues:
            return Completion.failed(
                "begins with a text, which not every server goes on with; set continues = true for one that "
                "knows continue_final_message"
            )
        return None

    def _settle_model(self) -> None:
        if self.model is None:
            with self._probing:
                if self.model is None:
                    self.model = self._loop.run(served_model)

    def _settle_capabilities(self) -> None:
        with self._probing:
            if self.capabilities is None:
                may_upload = not self.remote_urls or self.allow_upload
                model = self.model or ""
                self.capabilities = self._loop.run(
                    lambda sender: self._api.probe(sender, model, self.extra, may_upload=may_upload)
                )

    def _key(self, request: Request) -> str:
        return key_of(self.model, self.extra, request.identity(), *self._api.cache_key)

    def _cached(self, key: str) -> Completion | None:
        completion = None if self._cache is None else self._cache.get(key)
        if completion is not None:
            with self._counting:
                self.counts["cached"] += 1
                self.served[completion.model] += 1
        return completion

    async def _answer(self, sender: HttpSender, request: Request, key: str) -> Completion:
        """Return the answer to a request; of equal ones at the same time, one is sent."""
        if key in self._pending:
            return await asyncio.shield(self._pending[key])
        future = self._pending[key] = asyncio.get_running_loop().create_future()
        try:
            completion = await self._sent(sender, request)
            if completion.ending != "failed" and self._cache is not None:
                await _undisturbed(asyncio.to_thread(self._cache.put, key, completion))
            future.set_result(completion)
            return completion
        except BaseException as error:
            future.set_exception(error)
            future.exception()  # nobody else may be waiting
            raise
        finally:
            del self._pending[key]

    async def _sent(self, sender: HttpSender, request: Request) -> Completion:
        assert self.capabilities is not None
        if request.has_images and self.capabilities.images is False:
            return Completion.failed("the server reads no images")
        # Nothing is prepared before its turn: bodies hold images.
        async with sender.slots:
            reserved = self.spending.reserve(request)
            if reserved is None:
                cost = f"{self.spending.cost:.4g} spent of {self.spending.max_cost:g}"
                return Completion.failed(f"the limit of cost is reached: {cost}")
            completion = None
            start = time.perf_counter()
            try:
                body = await asyncio.to_thread(
                    self._api.body, request, self.model or "", self.capabilities, self.extra
                )
                self.counts["requests"] += 1
                answer = await sender.post(self._api.path(self.capabilities), body)
                completion = self._api.completion(answer, request)
                self.served[completion.model] += completion.ending != "failed"
                return completion
            except (Failure, WrongAnswer, DataError) as error:
                return Completion.failed(str(error))
            finally:
                self.spending.settle(reserved, completion, time.perf_counter() - start)

    def _sender(self) -> HttpSender:
        key = _key_of(self._key_variable)
        return HttpSender(self.urls, key=key, limits=self._limits, counts=self.counts)


async def _undisturbed(work: Coroutine[Any, Any, None]) -> None:
    """Do some work to its end, though another request's failure ends all: what was answered is kept."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def _base_url(url: str) -> str:
    """Return a base URL without its last slash.

    Raises:
        ConfigError: When it is none, or holds a password.
    """
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise ConfigError(
            f"a base URL of {parts.hostname} holds a user's name or password; set key_variable to the "
            "environment variable that holds the key"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"a base URL is http://HOST:PORT/v1 or https://HOST/v1, not {url!r}")
    return url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/v1"


def _key_of(variable: str | None) -> str | None:
    """Return the key in an environment variable.

    Raises:
        ConfigError: When there is none.
    """
    if variable is None:
        return None
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{,60}", variable):
        raise ConfigError(
            "key_variable is the name of an environment variable, in capitals, such as OPENAI_API_KEY; it is "
            "never the key"
        )
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"the environment variable {variable} is not set, and key_variable names it")
    return key
