"""From a request's body to rewards: parsing and tokenizing in threads, then the scheduler."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from basereward.comparison import Comparison
from basereward.hardware.threads import num_cores
from basereward.prepared import Prepared
from basereward.serving.apis.base import UNREAD_FIELDS, Api, Scored, refuse_given
from basereward.serving.engine import Engine, Rewards
from basereward.serving.json_values import num_values
from basereward.serving.limits import Limits
from basereward.serving.memory import MemoryBudget
from basereward.serving.metrics import Metrics
from basereward.serving.problems import Problem, log_failure
from basereward.serving.request_parser import RequestParser, ScoringRequest
from basereward.serving.scheduler import Scheduler
from basereward.work_limits import WorkLimits, raise_if_cancelled, work_limited

Result = TypeVar("Result")


@dataclass
class Work:
    """The work in threads for a request.

    Attributes:
        is_over: Whether nobody waits for it any more.
        num_bytes: The bytes that are reserved for its images.
        running: The last of it.
    """

    is_over: bool = False
    num_bytes: int = 0
    running: Future[Any] | None = None


@dataclass(frozen=True)
class UnpreparedRequest:
    """A request whose images wait for memory.

    Args:
        body: The decoded body.
        engine: The engine of the model that it names.
        request: Its comparisons.
        num_bytes: The bytes that its images will take.
    """

    body: object
    engine: Engine
    request: ScoringRequest
    num_bytes: int


@dataclass(frozen=True)
class ParsedRequest:
    """A request, ready to be scored.

    Args:
        body: The decoded body.
        engine: The engine of the model that it names.
        items: What the engine prepared of each item, or its problem.
        keeps_going: Whether an item's problem leaves the others alone.
        param: The field of the body that holds the items.
    """

    body: object
    engine: Engine
    items: list[Prepared[Any] | Problem]
    keeps_going: bool
    param: str


class ScoringService:
    """Scores the requests of all APIs; the first engine is the default."""

    def __init__(
        self, engines: Mapping[str, Engine], scheduler: Scheduler, limits: Limits, metrics: Metrics
    ) -> None:
        self.engines = engines
        self.limits = limits
        self.metrics = metrics
        self.scheduler = scheduler
        self.memory = MemoryBudget(limits.prepared_bytes)
        metrics.prepared_bytes.set_function(lambda: self.memory.reserved)
        self._parsers = ThreadPoolExecutor(
            max_workers=max(2, num_cores() // 2), thread_name_prefix="basereward-parse"
        )

    def close(self) -> None:
        """Shut the threads down without waiting for them."""
        self._parsers.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def work(self) -> Iterator[Work]:
        """Give a request its work, which ends when it leaves; its memory is given back after its threads."""
        work = Work()
        loop = asyncio.get_running_loop()

        def release(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self.memory.release, work.num_bytes)

        try:
            yield work
        finally:
            work.is_over = True
            if work.running is None or work.running.done():
                self.memory.release(work.num_bytes)
            else:
                work.running.add_done_callback(release)

    def parse(self, api: Api, body: bytes, work: Work) -> asyncio.Future[ParsedRequest]:
        """Decode, check and tokenize a request in a thread; its images wait until there is memory for them.

        Raises:
            Problem: By the future, when it can't be scored.
        """
        return asyncio.create_task(self._parsed(api, body, work))

    async def _parsed(self, api: Api, body: bytes, work: Work) -> ParsedRequest:
        read = await self._in_thread(work, lambda: self._read(api, body))
        if isinstance(read, ParsedRequest):
            return read
        await self.memory.reserve(read.num_bytes)
        work.num_bytes = read.num_bytes
        return await self._in_thread(work, lambda: self._prepare(read))

    def _in_thread(self, work: Work, function: Callable[[], Result]) -> asyncio.Future[Result]:
        """Call a function in a thread, which it leaves early when the work is over."""
        limits = WorkLimits(self.limits.tokens, lambda: work.is_over)

        def limited() -> Result:
            with work_limited(limits):
                return function()

        future = self._parsers.submit(limited)
        work.running = future
        return asyncio.wrap_future(future)

    def score(self, parsed: ParsedRequest) -> asyncio.Future[list[Scored | Problem]]:
        """Queue a request, and return a future of each item's rewards or problem.

        Raises:
            Problem: When too much is waiting; by the future, when an item has a problem and the request
                doesn't keep going.
        """
        prepared = [item for item in parsed.items if isinstance(item, Prepared)]
        futures = self.scheduler.submit(parsed.engine, prepared) if prepared else []
        results = asyncio.create_task(self._results(parsed, futures))
        # Also where it was cancelled before its first step.
        results.add_done_callback(lambda _: [future.cancel() for future in futures])
        return results

    async def _results(
        self, parsed: ParsedRequest, futures: Sequence[asyncio.Future[Rewards | Problem]]
    ) -> list[Scored | Problem]:
        # Unlike `gather`, this can be cancelled without a word in the log.
        scored = iter([await future for future in futures])
        results = [
            item if isinstance(item, Problem) else _result(f"{parsed.param}[{number}]", item, next(scored))
            for number, item in enumerate(parsed.items)
        ]
        for result in results:
            if isinstance(result, Scored):
                self.metrics.responses.inc(len(result.rewards.values))
            elif parsed.keeps_going:
                self.metrics.problems.labels(result.code).inc()
            else:
                raise result
        return results

    def _read(self, api: Api, body: bytes) -> ParsedRequest | UnpreparedRequest:
        if num_values(body, self.limits.values) > self.limits.values:
            raise Problem("too_many_values")
        decoded = _decoded(body, api.request_type, api.keeps_nulls)
        refuse_given(decoded)
        request = api.parse(decoded, RequestParser(self.limits))
        engine = self._engine(request.model)
        comparisons = [item for item in request.items if isinstance(item, Comparison)]
        num_bytes = sum(engine.image_bytes(comparison) for comparison in comparisons)
        if num_bytes > self.limits.prepared_bytes:
            raise Problem("too_many_pixels")
        unprepared = UnpreparedRequest(decoded, engine, request, num_bytes)
        return unprepared if num_bytes else self._prepare(unprepared)

    def _prepare(self, unprepared: UnpreparedRequest) -> ParsedRequest:
        engine, request = unprepared.engine, unprepared.request
        items: list[Prepared[Any] | Problem] = []
        for number, item in enumerate(request.items):
            raise_if_cancelled()
            prepared = (
                item
                if isinstance(item, Problem)
                else self._prepared(engine, item, f"{request.param}[{number}]")
            )
            if isinstance(prepared, Problem) and not request.keeps_going:
                raise prepared
            items.append(prepared)
        return ParsedRequest(unprepared.body, engine, items, request.keeps_going, request.param)

    def _engine(self, name: str | None) -> Engine:
        if name is None:
            return next(iter(self.engines.values()))
        if name not in self.engines:
            raise Problem("model_not_found", "model")
        return self.engines[name]

    def _prepared(self, engine: Engine, comparison: Comparison, param: str) -> Prepared[Any] | Problem:
        try:
            prepared = engine.prepare(comparison)
        except Problem as problem:
            return problem.at(param)
        except Exception as error:
            log_failure("reading an item", error)
            return Problem("engine_failed", param)
        return Problem("too_many_tokens", param) if prepared.size.tokens > self.limits.tokens else prepared


def _result(param: str, item: Prepared[Any], rewards: Rewards | Problem) -> Scored | Problem:
    if isinstance(rewards, Problem):
        return rewards.at(param)
    return Scored(item.comparison, rewards, item.size.tokens)


def _decoded(body: bytes, kind: type[msgspec.Struct], keeps_nulls: Collection[str] = ()) -> msgspec.Struct:
    """Return a body as its type; a null is a value in the fields of `keeps_nulls`.

    Raises:
        Problem: When it is not JSON, or doesn't follow the type.
    """
    try:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError as error:
            if UNKNOWN_FIELD.match(str(error)) is None:
                raise
            # Fields without a value are absent ones; clients that write all of theirs send such.
            return msgspec.convert(_without_nulls(msgspec.json.decode(body), keeps_nulls), kind)
    except msgspec.ValidationError as error:
        # Only the place is kept of the library's text; its names are the schema's.
        _, _, place = str(error).partition(" - at `$")
        param = place.strip(".`")
        missing, unknown = MISSING_FIELD.match(str(error)), UNKNOWN_FIELD.match(str(error))
        if named := missing or (unknown and unknown[1] in UNREAD_FIELDS and unknown):
            param = f"{param}.{named[1]}".strip(".")
        raise Problem("body_not_valid", param or None) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Problem("body_not_json") from None


MISSING_FIELD = re.compile(r"Object missing required field `(\w+)`")
UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*?)`(?: - at `|\Z)", re.DOTALL)


def _without_nulls(value: Any, kept: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {
            key: entry if key in kept else _without_nulls(entry, kept)
            for key, entry in value.items()
            if entry is not None
        }
    return [_without_nulls(entry, kept) for entry in value] if isinstance(value, list) else value
