"""Cases are checked before they are timed, and all variants are timed."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from basereward.testing.native import timing
from basereward.testing.native.timing import Case, floor, keep_large_blocks, measure, shown, timed


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "BUDGET_SECONDS", 0.0)


def case(offset: float = 0.0) -> Case:
    values = torch.arange(1.0, 5.0)
    variants = {
        "native": lambda: (values.sum(), values * 2),
        "eager": lambda: (values.sum() + offset, values + values),
        "the sum alone": lambda: (values.sum() + 1,),
    }
    return Case("sum x 4", "native", variants, num_bytes=32)


def test_every_variant_is_timed_at_least_five_times() -> None:
    row = timed(case())
    assert (row["case"], row["turns"], row["num_bytes"], row["dtype"]) == ("sum x 4", 5, 32, "float32")
    assert list(row["seconds"]) == ["native", "eager", "the sum alone"]
    for name, (low, high) in row["quartiles"].items():
        assert 0 < low <= row["seconds"][name] <= high


def test_a_variant_that_differs_is_not_timed_but_told() -> None:
    with pytest.raises(AssertionError, match=r"sum x 4: eager differs from native: ") as caught:
        timed(case(offset=0.5))
    # 10.5 against 10, over the larger of them.
    assert "Absolute difference: 0.0476190476" in str(caught.value)


def test_measuring_makes_each_case_when_it_is_due_and_prints_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = {"bytes": 16.0, "float32": 100.0}
    monkeypatch.setattr(timing, "roofline", lambda finish: rates)
    made = []

    def make() -> Case:
        made.append(len(capsys.readouterr().out.splitlines()))
        return case()

    found, rows = measure([make, make])
    assert found == rates
    assert len(rows) == 2
    assert made == [0, 1]
    # 32 bytes at 16 bytes/s.
    assert capsys.readouterr().out.splitlines()[-1].endswith("floor 2 s")


def test_the_floor_is_the_longer_of_bytes_and_products() -> None:
    row = {"num_bytes": 100, "num_flops": 600, "dtype": "bfloat16"}
    assert floor(row, {"bytes": 50.0, "bfloat16": 200.0}) == 3.0
    assert floor(row, {"bytes": 10.0, "bfloat16": 200.0}) == 10.0


def test_times_have_three_digits_and_a_unit() -> None:
    assert [shown(seconds) for seconds in (2.5, 0.01234, 4.2e-5)] == ["2.5 s", "12.3 ms", "42 us"]


def test_the_program_starts_again_unless_the_allocator_was_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = []
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "0")
    keep_large_blocks()
    assert started == []
    monkeypatch.delenv("MALLOC_MMAP_MAX_")
    keep_large_blocks()
    ((program, arguments, environment),) = started
    assert (program, arguments[1:]) == (sys.executable, sys.argv)
    assert environment["MALLOC_MMAP_MAX_"] == "0"


def test_a_case_that_would_take_minutes_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # 32 bytes at 1 byte/s take 32 s.
    monkeypatch.setattr(timing, "roofline", lambda finish: {"bytes": 1.0, "float32": 100.0})
    assert measure([case])[1] == []
    assert capsys.readouterr().out.endswith("left out: its products alone take 32 s here\n")


def test_the_ceiling_is_a_product_as_large_as_a_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def product_flops(dtype: torch.dtype, device: torch.device, **options: float) -> float:
        asked.append((dtype, device.type, options))
        return 7.0

    monkeypatch.setattr(timing, "product_flops", product_flops)
    monkeypatch.setattr(timing, "SUM_NUMBERS", 2**10)
    rates = timing.roofline()
    assert rates["bytes"] > 0
    assert (rates["float32"], rates["bfloat16"]) == (7.0, 7.0)
    options = {"seconds": timing.PRODUCT_SECONDS, "largest": 4096}
    assert asked == [(torch.float32, "cpu", options), (torch.bfloat16, "cpu", options)]
