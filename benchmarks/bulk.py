"""Time the scoring of files: rows a second of `score-shards`' own path, and of forward passes
alone on the same batches.

Run as `python benchmarks/bulk.py`. The model is a random Llama of 26M parameters, the rows pairs of 50 + 2 x
40 words in Parquet; both take turns in one process.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from against_trl import pairs_of_lengths, save_model

BATCH_SIZE = 16


def main() -> None:
    """Time both in turns, and print the medians."""
    import pyarrow
    import pyarrow.parquet

    from basereward.config import Component
    from basereward.scoring.reward_model import RewardModel
    from basereward.scoring.shards import score_shards, shards_of

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {"files": [], "model": []}
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        save_model(root / "model")
        model = RewardModel.build(backbone=Component("causal-lm", {"model": str(root / "model")}))
        model.paradigm.eval()
        rows = [
            {"prompt": prompt, "responses": responses}
            for prompt, *responses in pairs_of_lengths(arguments.rows, 50, 40)
        ]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), root / "rows.parquet")
        shards = shards_of([root / "rows.parquet"], root / "rewards")
        from basereward import Comparison

        prepared = [model.paradigm.prepare(Comparison(row["prompt"], row["responses"])) for row in rows]
        for turn in range(arguments.turns + 1):
            began = time.perf_counter()
            shards[0].target.unlink(missing_ok=True)
            score_shards(
                model, shards, root / "rewards", model_digest="x", batch_size=BATCH_SIZE, progress=False
            )
            between = time.perf_counter()
            for start in range(0, len(prepared), BATCH_SIZE):
                model.paradigm.score_of(prepared[start : start + BATCH_SIZE]).tolist()
            if turn:
                times["files"].append(between - began)
                times["model"].append(time.perf_counter() - between)
    ratios = [whole / alone for whole, alone in zip(times["files"], times["model"], strict=True)]
    result = {
        **{
            f"{name}_rows_per_second": arguments.rows / statistics.median(found)
            for name, found in times.items()
        },
        "overhead": statistics.median(ratios) - 1,
    }
    rates = [f"{result[f'{name}_rows_per_second']:.1f} rows/s" for name in times]
    print(f"files {rates[0]}, model alone {rates[1]}: {100 * result['overhead']:.1f} % more time")
    if arguments.output:
        machine = {"platform": platform.platform(), "command": " ".join(sys.argv)}
        arguments.output.write_text(json.dumps({"machine": machine, "results": [result]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
