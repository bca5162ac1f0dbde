"""Streamed data takes the same memory however much there is; held data doesn't."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def memory() -> ModuleType:
    """Return the benchmark, which reads a file as a training does, in a process of its own."""
    path = Path(__file__).parents[2] / "benchmarks" / "memory.py"
    spec = importlib.util.spec_from_file_location("memory_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def taken_mb(memory: ModuleType, path: Path, num_rows: int, *, streaming: bool) -> float:
    """Return the megabytes that reading some rows takes at its peak."""
    if not path.exists():
        memory.write_jsonl(path, num_rows)
    found = memory.measure(path, streaming=streaming, window=1000)
    assert found["num_rows"] == num_rows
    return float(found["taken_mb"])


@pytest.mark.external
def test_streaming_ten_times_the_rows_takes_no_more_memory(memory: ModuleType, tmp_path: Path) -> None:
    few = taken_mb(memory, tmp_path / "few.jsonl", 2_000, streaming=True)
    # A page here and there is no growth; held, 18,000 rows more are 30 MB.
    assert taken_mb(memory, tmp_path / "many.jsonl", 20_000, streaming=True) < few + 5


@pytest.mark.external
def test_a_parquet_file_larger_than_the_memory_limit_is_streamed(memory: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "images.parquet"
    memory.write_parquet(path, 4_500, 100_000)
    assert path.stat().st_size > 420 * memory.MEGABYTE
    found = memory.measure(path, streaming=True, window=64, limit_mb=300)
    assert found["num_rows"] == 4_500


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_million_rows_take_no_more_memory_than_a_hundredth_of_them(
    memory: ModuleType, tmp_path: Path
) -> None:
    few, many = tmp_path / "few.jsonl", tmp_path / "many.jsonl"
    streamed_few = taken_mb(memory, few, 10_000, streaming=True)
    assert taken_mb(memory, many, 1_000_000, streaming=True) < streamed_few + 10
    # The control: what is held does grow.
    assert taken_mb(memory, few, 10_000, streaming=False) > streamed_few + 5


@pytest.mark.slow
def test_the_memory_limit_keeps_a_larger_file_from_being_held(memory: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "images.parquet"
    memory.write_parquet(path, 4_500, 100_000)
    assert memory.measure(path, streaming=False, window=64, limit_mb=300)["failed"] == "out of memory"
