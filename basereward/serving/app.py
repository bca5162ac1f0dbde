"""The ASGI application: from bytes of a request to bytes of an answer, and what may go wrong between."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from basereward.serving.access import Access
from basereward.serving.apis import dialects
from basereward.serving.apis.base import Answer, Dialect, Scored, refusal
from basereward.serving.engine import Engine, Prepared
from basereward.serving.information import JSON, Information
from basereward.serving.limits import Limits
from basereward.serving.metrics import Metrics
from basereward.serving.problems import Problem, log_failure
from basereward.serving.request_reader import Call, Reader
from basereward.serving.scheduler import Scheduler

Result = TypeVar("Result")
Endpoint = Callable[[Request], Awaitable[Response]]

CLIENT_LEFT = 499
"""The status, never sent, under which requests are counted whose client has left (nginx's number)."""


class Server:
    """Engines behind an ASGI application, `app`.

    Args:
        engines: What is served; the first where a request names none.
        limits: What is refused.
        access: Who is let in.
    """

    def __init__(
        self, engines: Sequence[Engine], limits: Limits | None = None, access: Access | None = None
    ) -> None:
        self.engines = {engine.name: engine for engine in engines}
        self.limits = limits or Limits()
        self.access = access or Access()
        self.metrics = Metrics()
        self.scheduler = Scheduler(self.limits, self.metrics)
        self.is_draining = False
        self.num_answering = 0
        self.num_answered = 0
        self._is_running = False
        self._waiting_bytes = 0
        self._readers = ThreadPoolExecutor(
            max_workers=max(2, (os.cpu_count() or 2) // 2), thread_name_prefix="basereward-read"
        )
        self.app = Starlette(
            routes=self._routes(),
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _of_router},
        )

    def drain(self) -> None:
        """Refuse what comes from now on; what has come is answered."""
        self.is_draining = True

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered with rewards."""
        return self._is_running and not self.is_draining

    @property
    def is_idle(self) -> bool:
        """Whether every request that was accepted is answered."""
        return self.num_answering == 0

    def _routes(self) -> list[Route]:
        routes = Information(self).routes()
        for dialect in dialects():
            endpoint = self._scoring(dialect)
            routes += [Route(path, endpoint, methods=["POST"]) for path in dialect.paths]
        return routes

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(self.scheduler.run())
        self._is_running = True
        try:
            yield
        finally:
            self._is_running = False
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            self.scheduler.close()
            self._readers.shutdown(wait=False, cancel_futures=True)

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint that lets in whom the server lets in."""

        async def guarded(request: Request) -> Response:
            try:
                self.access.check(request.headers)
                return await endpoint(request)
            except Problem as problem:
                return self._refused(problem, refusal(problem))
            except Exception as error:
                # Here, since whoever is outside would log the error's text.
                log_failure(request.scope["route"].path, error)
                bug = Problem("internal_error")
                return self._refused(bug, refusal(bug))

        return guarded

    def _scoring(self, dialect: Dialect) -> Endpoint:
        async def scoring(request: Request) -> Response:
            started = time.perf_counter()
            path = request.scope["route"].path
            self.num_answering += 1
            self.metrics.answering.inc()
            status = CLIENT_LEFT
            try:
                response = await self._answered(request, dialect, started)
                status = response.status_code
                return response
            except Problem as problem:
                status = problem.status
                return self._refused(problem, dialect.problem(problem))
            except ClientDisconnect:
                return Response(status_code=CLIENT_LEFT)
            except Exception as error:
                # Here, since whoever is outside would log the error's text.
                log_failure(path, error)
                bug = Problem("internal_error")
                status = bug.status
                return self._refused(bug, dialect.problem(bug))
            finally:
                self.num_answering -= 1
                self.num_answered += status != CLIENT_LEFT
                self.metrics.answering.dec()
                self.metrics.requests.labels(path, str(status)).inc()
                self.metrics.answer_seconds.observe(time.perf_counter() - started)

        return scoring

    def _refused(self, problem: Problem, body: Any) -> Response:
        self.metrics.problems.labels(problem.code).inc()
        headers = problem.headers
        if self.is_draining:
            headers["Connection"] = "close"
        return Response(msgspec.json.encode(body), problem.status, headers, JSON)

    async def _answered(self, request: Request, dialect: Dialect, started: float) -> Response:
        """Read a request, have it scored, and write the answer.

        Raises:
            Problem: When it isn't answered with rewards.
            ClientDisconnect: When nobody waits for the answer.
        """
        self.access.check(request.headers)
        if self.is_draining:
            raise Problem("draining")
        if self.num_answering > self.limits.requests:
            raise Problem("too_many_requests")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            raise Problem("content_type_not_json")
        deadline = started + self.limits.seconds
        held = _Held(self)
        gone: asyncio.Task[None] | None = None
        try:
            body = await self._body(request, held, deadline)
            gone = asyncio.create_task(_disconnect(request))
            call, engine, prepared = await self._unless(
                gone,
                deadline,
                asyncio.get_running_loop().run_in_executor(self._readers, self._read, dialect, body),
            )
            read = time.perf_counter()
            results = await self._scored(engine, call, prepared, gone, deadline)
            answer = Answer(
                engine,
                results,
                f"{dialect.paths[0].strip('/').replace('/', '-')}-{uuid.uuid4().hex}",
                int(time.time()),
                {"read": read - started, "score": time.perf_counter() - read},
                request.query_params,
            )
            return Response(
                msgspec.json.encode(dialect.write(call.body, answer)),
                headers={"Connection": "close"} if self.is_draining else None,
                media_type=JSON,
            )
        finally:
            held.release()
            if gone is not None:
                gone.cancel()

    async def _body(self, request: Request, held: _Held, deadline: float) -> bytes:
        """Return the body, of which no more is read than is allowed.

        Raises:
            Problem: When it is too large or too slow, or too much is being answered.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self.limits.body_bytes:
            raise Problem("body_too_large")
        pieces = []
        size = 0
        try:
            async with asyncio.timeout(deadline - time.perf_counter()):
                async for piece in request.stream():
                    size += len(piece)
                    if size > self.limits.body_bytes:
                        raise Problem("body_too_large")
                    held.hold(len(piece))
                    pieces.append(piece)
        except TimeoutError:
            raise Problem("body_too_slow") from None
        return b"".join(pieces)

    def _read(self, dialect: Dialect, body: bytes) -> tuple[Call, Engine, list[Prepared | Problem]]:
        """Decode, check and tokenize a request; runs in a thread."""
        decoded = _decoded(body, dialect.request)
        call = dialect.read(decoded, Reader(self.limits))
        call.body = decoded
        engine = self._engine(call.model)
        prepared: list[Prepared | Problem] = []
        for number, item in enumerate(call.items):
            if not isinstance(item, Problem):
                prepared.append(self._prepared(engine, item, f"items[{number}]"))
            else:
                prepared.append(item)
            found = prepared[-1]
            if isinstance(found, Problem) and not call.keeps_going:
                raise found
        return call, engine, prepared

    def _engine(self, name: str | None) -> Engine:
        if name is None:
            return next(iter(self.engines.values()))
        if name not in self.engines:
            raise Problem("model_not_found", "model")
        return self.engines[name]

    def _prepared(self, engine: Engine, item: Any, param: str) -> Prepared | Problem:
        try:
            found = engine.prepare(item)
        except Problem as problem:
            return problem.at(param)
        except Exception as error:
            log_failure("reading an item", error)
            return Problem("engine_failed", param)
        return Problem("too_many_tokens", param) if found.size.tokens > self.limits.tokens else found

    async def _scored(
        self,
        engine: Engine,
        call: Call,
        prepared: Sequence[Prepared | Problem],
        gone: asyncio.Task[None],
        deadline: float,
    ) -> list[Scored | Problem]:
        """Return the rewards of each item, or its problem.

        Raises:
            Problem: When it is too late, or one item's problem is the whole call's.
            ClientDisconnect: When nobody waits any more.
        """
        usable = [one for one in prepared if isinstance(one, Prepared)]
        futures = self.scheduler.submit(engine, usable) if usable else []
        self.metrics.waiting_tokens.set(self.scheduler.waiting_tokens)
        try:
            found = (
                await self._unless(gone, deadline, asyncio.ensure_future(_all(futures))) if futures else []
            )
        finally:
            for future in futures:
                future.cancel()
        waiting = iter(found)
        results: list[Scored | Problem] = []
        for number, one in enumerate(prepared):
            result = one if isinstance(one, Problem) else next(waiting)
            if isinstance(result, Problem) or isinstance(one, Problem):
                assert isinstance(result, Problem)
                if isinstance(one, Prepared):
                    result = result.at(f"items[{number}]")
                if not call.keeps_going:
                    raise result
                self.metrics.problems.labels(result.code).inc()
                results.append(result)
            else:
                results.append(Scored(one.comparison, result, one.size.tokens))
                self.metrics.responses.inc(len(result.values))
        return results

    async def _unless(
        self, gone: asyncio.Task[None], deadline: float, result: asyncio.Future[Result]
    ) -> Result:
        """Return a result, unless the client leaves or it is too late first.

        Raises:
            Problem: When it is too late.
            ClientDisconnect: When the client has left.
        """
        remaining = deadline - time.perf_counter()
        waited: list[asyncio.Future[Any]] = [result, gone]
        await asyncio.wait(waited, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        result.cancel()
        if gone.done():
            raise ClientDisconnect
        raise Problem("deadline_passed")


class _Held:
    """Bytes of a request that count as waiting until it is answered."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.size = 0

    def hold(self, size: int) -> None:
        if self.server._waiting_bytes + size > self.server.limits.waiting_bytes:
            raise Problem("too_many_requests")
        self.server._waiting_bytes += size
        self.size += size

    def release(self) -> None:
        self.server._waiting_bytes -= self.size
        self.size = 0


def _decoded(body: bytes, kind: Any) -> Any:
    """Return a body as its type.

    Raises:
        Problem: When it is no JSON, or has another shape.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        # Of the library's text the place is kept, whose names are the schema's own.
        _, _, place = str(error).partition(" - at `$")
        raise Problem("body_not_valid", place.strip(".`") or None) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Problem("body_not_json") from None


async def _all(futures: Sequence[asyncio.Future[Result]]) -> list[Result]:
    """Return all results; unlike `gather`, it can be cancelled without a word in the log."""
    return [await future for future in futures]


async def _disconnect(request: Request) -> None:
    """Return when the client has left; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _of_router(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "method_not_allowed" if error.status_code == 405 else "path_not_found"
    problem = Problem(code)
    return Response(msgspec.json.encode(refusal(problem)), problem.status, error.headers, media_type=JSON)
