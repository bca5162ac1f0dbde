"""Batching by the scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from served import Echo

from basereward import Comparison
from basereward.serving.engine import Rewards
from basereward.serving.limits import Limits
from basereward.serving.metrics import Metrics
from basereward.serving.problems import Problem
from basereward.serving.scheduler import Scheduler


def run(play: Callable[[Scheduler], Awaitable[None]], **limits: int) -> None:
    """Run a play with a scheduler."""

    async def whole() -> None:
        scheduler = Scheduler(Limits(**limits), Metrics())
        running = asyncio.create_task(scheduler.run())
        try:
            await asyncio.wait_for(play(scheduler), 30)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            scheduler.close()

    asyncio.run(whole())


async def hold(scheduler: Scheduler, engine: Echo) -> asyncio.Future[Rewards | Problem]:
    """Have the device held by one comparison, until the engine's gate is opened."""
    engine.gate.clear()
    [held] = scheduler.submit(engine, [engine.prepare(Comparison("held", ["held"]))])
    while scheduler.waiting_tokens:
        await asyncio.sleep(0.001)
    return held


def submit(scheduler: Scheduler, engine: Echo, *texts: str) -> list[asyncio.Future[Rewards | Problem]]:
    return scheduler.submit(engine, [engine.prepare(Comparison("p", [text])) for text in texts])


def test_what_waits_while_the_device_works_goes_together() -> None:
    engine = Echo()

    async def play(scheduler: Scheduler) -> None:
        held = await hold(scheduler, engine)
        waiting = [own for text in ("a", "bb", "ccc") for own in submit(scheduler, engine, text)]
        engine.gate.set()
        found = await asyncio.gather(held, *waiting)
        assert [own.values for own in found if isinstance(own, Rewards)] == [[4.0], [1.0], [2.0], [3.0]]

    run(play)
    assert engine.passes == [[("held",)], [("a",), ("bb",), ("ccc",)]]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"batch_items": 2}, [["a", "bb"], ["ccc", "dddd"]]),
        # A prompt of 1 and 1, 2, 3, 4 characters: 2 + 3 fit 8, then 4, and 5 + 4 don't.
        ({"batch_tokens": 8}, [["a", "bb"], ["ccc"], ["dddd"]]),
        # Over the budget on its own, each has a pass.
        ({"batch_tokens": 1}, [["a"], ["bb"], ["ccc"], ["dddd"]]),
    ],
)
def test_batches_keep_to_their_budget(limits: dict[str, int], expected: list[list[str]]) -> None:
    engine = Echo()

    async def play(scheduler: Scheduler) -> None:
        held = await hold(scheduler, engine)
        waiting = submit(scheduler, engine, "a", "bb", "ccc", "dddd")
        engine.gate.set()
        await asyncio.gather(held, *waiting)

    run(play, **limits)
    assert [[text for (text,) in batch] for batch in engine.passes[1:]] == expected


def test_where_rows_are_padded_the_oldest_goes_with_those_like_it() -> None:
    engine = Echo(pads=True)

    async def play(scheduler: Scheduler) -> None:
        held = await hold(scheduler, engine)
        waiting = submit(scheduler, engine, "aa", "b" * 50, "cc", "d" * 50)
        engine.gate.set()
        await asyncio.gather(held, *waiting)

    run(play, batch_tokens=120)  # 2 * 51 places fit, and 3 * 51 don't
    assert [[text[0] for (text,) in batch] for batch in engine.passes[1:]] == [["a", "c"], ["b", "d"]]


def test_one_prompt_of_several_requests_is_one_tree() -> None:
    engine = Echo(shares_prefix=True)

    async def play(scheduler: Scheduler) -> None:
        held = await hold(scheduler, engine)
        waiting = [own for text in ("a", "bb", "ccc") for own in submit(scheduler, engine, text)]
        waiting += scheduler.submit(engine, [engine.prepare(Comparison("q", ["a"]))])
        engine.gate.set()
        found = await asyncio.gather(held, *waiting)
        assert [own.values for own in found if isinstance(own, Rewards)] == [
            [4.0],
            [1.0],
            [2.0],
            [3.0],
            [1.0],
        ]

    run(play)
    assert engine.passes[1:] == [[("a", "bb", "ccc"), ("a",)]]


def test_a_tree_of_several_requests_keeps_to_the_budget() -> None:
    engine = Echo(shares_prefix=True)

    async def play(scheduler: Scheduler) -> None:
        held = await hold(scheduler, engine)
        waiting = submit(scheduler, engine, "aaa", "bbb", "ccc")
        engine.gate.set()
        await asyncio.gather(held, *waiting)

    run(play, batch_tokens=7)  # the prompt and two responses
    assert engine.passes[1:] == [[("aaa", "bbb")], [("ccc",)]]


def test_what_is_cancelled_never_reaches_the_device() -> None:
    engine = Echo(shares_prefix=True)

    async def play(scheduler: Scheduler) -> None:
        held = await hold(scheduler, engine)
        first, second, third = submit(scheduler, engine, "a", "bb", "ccc")
        second.cancel()
        engine.gate.set()
        await asyncio.gather(held, first, third)
        assert scheduler.waiting_tokens == 0

    run(play)
    assert engine.passes[1:] == [[("a", "ccc")]]


def test_models_share_the_device_and_not_a_batch() -> None:
    one, other = Echo("one"), Echo("other")

    async def play(scheduler: Scheduler) -> None:
        held = await hold(scheduler, one)
        waiting = [own for engine in (one, other, one) for own in submit(scheduler, engine, engine.name)]
        one.gate.set()
        await asyncio.gather(held, *waiting)

    run(play)
    assert one.passes[1:] == [[("one",), ("one",)]]
    assert other.passes == [[("other",)]]


def test_too_much_that_waits_is_refused_and_a_request_alone_never() -> None:
    engine = Echo()

    async def play(scheduler: Scheduler) -> None:
        held = await hold(scheduler, engine)
        [large] = submit(scheduler, engine, "x" * 100)
        with pytest.raises(Problem, match="^too_many_requests$"):
            submit(scheduler, engine, "y")
        engine.gate.set()
        await asyncio.gather(held, large)

    run(play, waiting_tokens=10)


def test_an_engine_that_raises_fails_its_batch_and_the_next_is_scored() -> None:
    engine = Echo()

    async def play(scheduler: Scheduler) -> None:
        [crashed] = submit(scheduler, engine, "crash")
        problem = await crashed
        assert isinstance(problem, Problem)
        assert problem.code == "engine_failed"
        [scored] = submit(scheduler, engine, "abc")
        assert await scored == Rewards([3.0])

    run(play)
