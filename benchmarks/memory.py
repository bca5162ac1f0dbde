"""Measure the memory of a training's data: streamed, and held, for growing files and under a limit.

Run it from the repository root:

    python benchmarks/memory.py

It writes JSONL of up to a million rows and a Parquet file larger than the memory that reading it may take,
reads each as a training does (mixed, curated, shuffled, batched) in a process of its own, and prints that
process's peak of resident memory above what it had before it opened the data.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MEGABYTE = 1 << 20
WORDS = ("river", "stone", "cloud", "wheel", "glass", "paper", "light", "train", "house", "green")


def write_jsonl(path: Path, num_rows: int) -> None:
    """Write rows of some 700 bytes."""
    chance = random.Random(0)

    def text(num_words: int) -> str:
        return " ".join(chance.choices(WORDS, k=num_words))

    with path.open("w", encoding="utf-8") as file:
        for number in range(num_rows):
            row = {"prompt": f"{number} {text(20)}", "responses": [text(40), text(40)], "ranks": [0, 1]}
            file.write(json.dumps(row) + "\n")


def write_parquet(path: Path, num_rows: int, image_bytes: int) -> None:
    """Write rows with an image's worth of bytes that don't compress; nothing here opens them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    chance = random.Random(0)
    schema = pa.schema(
        [
            ("prompt", pa.string()),
            ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
            ("responses", pa.list_(pa.string())),
            ("ranks", pa.list_(pa.float64())),
        ]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, num_rows, 64):
            rows = [
                {
                    "prompt": f"what is in image {number}",
                    "images": [{"bytes": chance.randbytes(image_bytes), "path": None}],
                    "responses": [f"a {chance.choice(WORDS)}", "something else"],
                    "ranks": [0.0, 1.0],
                }
                for number in range(start, min(start + 64, num_rows))
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema))


def read(path: Path, *, streaming: bool, window: int, limit_mb: int | None) -> dict[str, Any]:
    """Read a file as a training does, and return rows, seconds and memory.

    Args:
        path: The file.
        streaming: Whether to stream it.
        window: Rows that are shuffled among each other.
        limit_mb: Megabytes that the process may take from here on; None for no limit.
    """
    from basereward.config import Component, DataConfig, MixtureConfig, Source
    from basereward.data.curation import Curation
    from basereward.plugins import PluginManager
    from basereward.training.data_loader import DataReader, IterableRows, MapRows
    from basereward.training.prefetch import Prefetcher
    from basereward.training.rejected_rows import RejectedRows

    plugins = PluginManager()
    steps = (Component("drop-identical"), Component("length-bias"))
    data = DataConfig(
        train=(Source("basereward", {"path": str(path)}),),
        curation=steps,
        mixture=MixtureConfig(shuffle_buffer=window),
        streaming=streaming,
    )
    rejected = RejectedRows(path.with_suffix(".rejected"), fail=False)
    reader = DataReader(
        data.train,
        plugins,
        split="train",
        rejected=rejected,
        rejection_reason=lambda comparison: None,
        progress=lambda dataset, split: dataset,
        curation=Curation.of(steps, plugins),
    )
    kind = IterableRows if streaming else MapRows
    rows = kind(reader, data, seed=0, shuffle=True)
    before = _peak_mb()
    if limit_mb is not None:
        _limit(limit_mb)
    started = time.perf_counter()
    num_rows = 0
    try:
        rows.set_epoch(0)
        with Prefetcher(
            rows.rows(0), rows.num_rows, 128, lambda comparison: len(comparison.prompt)
        ) as batches:
            num_rows = sum(len(batch.prepared) for batch in batches)
    except MemoryError:
        return {"num_rows": num_rows, "failed": "out of memory"}
    seconds = time.perf_counter() - started
    return {"num_rows": num_rows, "seconds": seconds, "taken_mb": _peak_mb() - before}


def measure(
    path: Path, *, streaming: bool, window: int = 4096, limit_mb: int | None = None
) -> dict[str, Any]:
    """Do `read` in a process of its own, whose peak of memory is its alone."""
    arguments = [str(path), str(int(streaming)), str(window), str(limit_mb or 0)]
    done = subprocess.run(
        [sys.executable, __file__, "--child", *arguments], capture_output=True, text=True, check=False
    )
    if not done.stdout:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak_mb() -> float:
    # Not `ru_maxrss`, in which a process starts with the peak of the one that started it.
    return _status("VmHWM") / 1024


def _limit(megabytes: int) -> None:
    """Let the process take no more than that many megabytes of private memory beyond what it has."""
    size = _status("VmData") * 1024 + megabytes * MEGABYTE
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def _status(name: str) -> int:
    """Return a figure of this process, in kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def _print(label: str, path: Path, **settings: Any) -> None:
    found = measure(path, **settings)
    size = path.stat().st_size / MEGABYTE
    if "failed" in found:
        numbers = found["failed"]
    else:
        rate = found["num_rows"] / found["seconds"]
        numbers = f"{found['taken_mb']:7.0f} MB  {found['seconds']:7.1f} s  {rate:9,.0f} rows/s"
    print(f"{label:34} {found['num_rows']:>9,} rows  {size:6.0f} MB file  {numbers}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the largest JSONL (default: 1000000)")
    parser.add_argument("--parquet-mb", type=int, default=1024, help="of the Parquet file (default: 1024)")
    parser.add_argument("--limit-mb", type=int, default=256, help="to read it within (default: 256)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        for share in (100, 10, 1):
            path = Path(directory) / f"{args.rows // share}.jsonl"
            write_jsonl(path, args.rows // share)
            _print("JSONL, streamed", path, streaming=True)
            if share > 1:
                _print("JSONL, held in memory", path, streaming=False)
            path.unlink()
        path = Path(directory) / "images.parquet"
        size = 100_000
        write_parquet(path, args.parquet_mb * MEGABYTE // size, size)
        limited = {"window": 256, "limit_mb": args.limit_mb}
        _print(f"Parquet, streamed in {args.limit_mb} MB", path, streaming=True, **limited)
        _print(f"Parquet, held in {args.limit_mb} MB", path, streaming=False, **limited)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        path, streaming, window, limit = sys.argv[2:]
        options = {"streaming": streaming == "1", "window": int(window), "limit_mb": int(limit) or None}
        print(json.dumps(read(Path(path), **options)))  # type: ignore[arg-type]
    else:
        main()
