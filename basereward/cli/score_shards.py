"""`basereward score-shards`: rewards of files beyond one machine, a table for each."""

from __future__ import annotations

import argparse
import os
import sys

from basereward.cli.command import Command
from basereward.cli.data_arguments import add_data_arguments, load_dataset
from basereward.cli.model_arguments import add_model_arguments, load_model, report_counts
from basereward.errors import ConfigError

COMMAND = Command(
    description="Score every row of every file, each file to a Parquet table of its own, in the same "
    "order. Run it again to go on where it stopped; run it in many processes to share the files out.",
    examples="""\
  basereward score-shards MODEL_DIR data/*.parquet --output rewards
  torchrun --nproc-per-node 8 -m basereward score-shards MODEL_DIR data --output rewards
  sbatch --array 0-63 ... basereward score-shards MODEL_DIR data --output rewards
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_model_arguments(parser)
    parser.add_argument(
        "inputs", metavar="DATA", nargs="+", help="Parquet or JSONL files, or directories of them"
    )
    add_data_arguments(parser)
    parser.add_argument("--output", metavar="DIR", required=True, help="directory of the tables")
    parser.add_argument(
        "--worker", metavar="I", type=int, help="number of this worker, from 0 (default: what torchrun says)"
    )
    parser.add_argument("--workers", metavar="N", type=int, help="how many workers there are")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace tables of another model or of other rows"
    )


def run(args: argparse.Namespace) -> int:
    """Score, and say what became of the files."""
    from pathlib import Path

    from basereward.scoring.shards import digest_of_model, score_shards, shards_of

    worker, num_workers = worker_of(args)
    shards = shards_of(args.inputs, Path(args.output))
    source = Path(args.model)
    model = load_model(args, args.model)
    if args.dry_run:
        raise ConfigError("--dry-run goes with one file: basereward score MODEL --input FILE --dry-run")
    outcome = score_shards(
        model,
        shards,
        Path(args.output),
        model_digest=digest_of_model(source) if source.exists() else args.model,
        open_file=lambda path: load_dataset(args, str(path), by_row=True),
        reader=" ".join([args.dataset or "", *args.option, args.media_dir or ""]).strip(),
        worker=worker,
        num_workers=num_workers,
        batch_size=args.batch_size,
        overwrite=args.overwrite,
        progress=not args.quiet,
    )
    report_counts(model)
    for shard, error in outcome.failed:
        print(f"basereward: {shard.source} is left out: {error.at(file=str(shard.source))}", file=sys.stderr)
    if not args.quiet:
        print(
            f"{len(outcome.scored):,} files scored, {len(outcome.skipped):,} were there already, "
            f"{len(outcome.failed):,} left out"
            + (f"; {args.output}/summary.json is of all" if outcome.is_complete else ""),
            file=sys.stderr,
        )
    return 1 if outcome.failed else 0


def worker_of(args: argparse.Namespace) -> tuple[int, int]:
    """Return this worker's number and the number of workers: as given, or from torchrun or a job array."""
    if (args.worker is None) != (args.workers is None):
        raise ConfigError("--worker and --workers go together: --worker 0 --workers 4 is the first of four")
    if args.worker is not None:
        return args.worker, args.workers
    # A job array, whose numbers may begin anywhere and go in steps; each of its tasks may be a torchrun.
    task, first, step, num_tasks = (
        int(os.environ.get(f"SLURM_ARRAY_TASK_{name}", default))
        for name, default in (("ID", "0"), ("MIN", "0"), ("STEP", "1"), ("COUNT", "1"))
    )
    rank, num_ranks = (
        int(os.environ.get(name, str(number))) for number, name in enumerate(("RANK", "WORLD_SIZE"))
    )
    return (task - first) // step * num_ranks + rank, num_tasks * num_ranks
