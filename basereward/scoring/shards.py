"""Scoring sets beyond one machine: files in, a table of rewards for each out, by any number of workers.

Workers need not know of each other. Which files are a worker's follows from the list of files alone, and a
table that is there, whole, and of the same model and the same input is not made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from basereward.data import Dataset
from basereward.data.formats import DetectedDataset
from basereward.errors import ConfigError, DataError
from basereward.protocols import Scorer
from basereward.reporting.progress import progress_bar
from basereward.scoring.batching import balanced_partition
from basereward.scoring.files import InputRows, ScoredRow
from basereward.scoring.reward_table import Summary, read_facts, write_table
from basereward.storage.atomic import file_digest, write_text
from basereward.storage.model_directory import CONFIG_FILE
from basereward.storage.outputs import check_outside_models, real_path
from basereward.storage.reading import read_json

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".arrow")
SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class Shard:
    """A file of rows, and the table that takes their rewards."""

    source: Path
    target: Path


@dataclass
class Outcome:
    """The shards that a worker scored, skipped or failed.

    Attributes:
        scored: Tables that were made.
        skipped: Tables that were there.
        failed: Files that can't be read to their end, with the reason; their tables are not made.
        is_complete: Whether every table of all workers is there now, and the summary with it.
    """

    scored: list[Shard] = field(default_factory=list)
    skipped: list[Shard] = field(default_factory=list)
    failed: list[tuple[Shard, DataError]] = field(default_factory=list)
    is_complete: bool = False


def shards_of(inputs: Iterable[str | Path], output: Path) -> list[Shard]:
    """Return the files of the inputs, each with its table in the output directory, by name.

    Args:
        inputs: Files, and directories of which all files are taken that hold rows.
        output: The directory.

    Raises:
        ConfigError: When there is no such input, a directory holds none, or two files would have one table.
    """
    sources: list[tuple[Path, Path]] = []
    for given in map(Path, inputs):
        if given.is_dir():
            paths = sorted(path for path in given.rglob("*") if path.name.endswith(SUFFIXES))
            paths = [path for path in paths if real_path(output) not in real_path(path).parents]
            if not paths:
                raise ConfigError(f"{given} holds no file of rows ({', '.join(SUFFIXES)})")
            sources += [(path, path.relative_to(given)) for path in paths]
        elif given.is_file():
            sources.append((given, Path(given.name)))
        else:
            raise ConfigError(f"{given}: there is no such file or directory")
    shards: dict[Path, Shard] = {}
    for source, name in sources:
        suffix = next((suffix for suffix in SUFFIXES if name.name.endswith(suffix)), name.suffix)
        target = output / name.with_name(f"{name.name.removesuffix(suffix)}.rewards.parquet")
        if target in shards:
            raise ConfigError(f"{source} and {shards[target].source} would both be scored to {target}")
        shards[target] = Shard(source, target)
    return [shards[target] for target in sorted(shards)]


def own_shards(shards: Sequence[Shard], worker: int, num_workers: int) -> list[Shard]:
    """Return the shards of one of several workers, which have about as many bytes each."""
    if not 0 <= worker < num_workers:
        raise ConfigError(
            f"worker {worker} of {num_workers} can't be: it is 0 to {num_workers - 1}; where a job array is "
            "run in part, say which worker it is with --worker and --workers"
        )
    sizes = [float(shard.source.stat().st_size) for shard in shards]
    return [shards[number] for number in balanced_partition(sizes, num_workers)[worker]]


def score_shards(
    model: Scorer[list[float]],
    shards: Sequence[Shard],
    output: Path,
    *,
    model_digest: str,
    open_file: Callable[[Path], Dataset] = DetectedDataset,
    reader: str = "",
    worker: int = 0,
    num_workers: int = 1,
    batch_size: int = 8,
    overwrite: bool = False,
    progress: bool = True,
) -> Outcome:
    """Score the rows of files, each file to a table of its own; what was interrupted goes on when repeated.

    Args:
        model: Scores.
        shards: All files, of all workers.
        output: The directory, in which the summary is left.
        model_digest: Tells the model from others; `digest_of_model` gives it.
        open_file: Opens a file's rows; if not given, each row's format is recognized by its fields.
        reader: Says how `open_file` reads, so that tables that were made by another reading are known.
        worker: The number of this worker.
        num_workers: How many there are.
        batch_size: Comparisons a forward pass; the rewards don't depend on it.
        overwrite: Whether tables of another model or another input are replaced.
        progress: Whether to show a progress bar on standard error.

    Raises:
        ConfigError: When a table is there that is of another model, another input or another reading.
    """
    check_outside_models(output, "--output")
    outcome = Outcome()
    shards_here = own_shards(shards, worker, num_workers)
    # All tables are looked at first: hours may lie between the first and the last.
    computed = dict(model.computed)
    facts = {"model": model_digest, "reader": reader, **computed}
    waiting = [shard for shard in shards_here if not _is_done(shard, facts, overwrite)]
    outcome.skipped = [shard for shard in shards_here if shard not in waiting]
    if waiting:
        _remove_summary(output / SUMMARY_FILE)
    for number, shard in enumerate(waiting, start=1):
        before = _stamp(shard.source)
        title = f"{shard.source.name} ({number}/{len(waiting)})"
        dataset = open_file(shard.source)
        with progress_bar(title, dataset.num_rows, is_shown=progress) as advance:
            rows = InputRows(dataset).scored(model, batch_size=batch_size, advance=advance)
            try:
                write_table(
                    _unchanged(rows, shard.source, before),
                    shard.target,
                    {**facts, "source": _facts_of(shard.source)},
                )
            except DataError as error:
                outcome.failed.append((shard, error))
                continue
        outcome.scored.append(shard)
    outcome.is_complete = not outcome.failed and _summarise(shards, output, model_digest, computed)
    return outcome


def _remove_summary(path: Path) -> None:
    """Remove the summary of an earlier scoring, which is of fewer tables or others.

    Raises:
        ConfigError: When the file is none.
    """
    try:
        is_ours = {"model", "tables"} <= set(read_json(path))
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError):
        is_ours = False
    if not is_ours:
        raise ConfigError(f"{path} is no summary of scored shards, and would be replaced; move it")
    path.unlink(missing_ok=True)


def digest_of_model(directory: str | Path) -> str:
    """Return a SHA-256 that tells a model directory from others, of the file that has every file's; or that
    of a judge's file.
    """
    path = Path(directory)
    return file_digest(path / CONFIG_FILE if path.is_dir() else path)


def _is_done(shard: Shard, wanted: Mapping[str, str], overwrite: bool) -> bool:
    """Tell whether a table is there that has been made as is wanted now."""
    try:
        facts = read_facts(shard.target)
        if facts is None:
            return False
        if facts["model"] != wanted["model"]:
            raise ConfigError(f"{shard.target} is of another model; --overwrite replaces it")
        if facts.get("reader", "") != wanted["reader"]:
            raise ConfigError(
                f"{shard.target} was made with other options of the dataset; --overwrite replaces it"
            )
        precision = facts.get("precision", "fp32")
        if precision != wanted.get("precision", precision):
            raise ConfigError(
                f"{shard.target} was computed in {precision}, not {wanted['precision']}; "
                f"--precision {precision} goes on with it, and --overwrite replaces it"
            )
        if not _is_of(shard.source, facts["source"]):
            raise ConfigError(
                f"{shard.target} was made of {shard.source} as it was before; --overwrite replaces it"
            )
    except ConfigError:
        if overwrite:
            return False
        raise
    return True


def _facts_of(source: Path) -> dict[str, Any]:
    return {"name": source.name, "bytes": source.stat().st_size, "sha256": file_digest(source)}


def _is_of(source: Path, facts: dict[str, Any]) -> bool:
    # Reading a file once more is little beside scoring it, and nothing less tells it from an edited one.
    return bool(source.stat().st_size == facts["bytes"] and file_digest(source) == facts["sha256"])


def _stamp(source: Path) -> tuple[int, int]:
    status = source.stat()
    return status.st_size, status.st_mtime_ns


def _unchanged(rows: Iterable[ScoredRow], source: Path, stamp: tuple[int, int]) -> Iterator[ScoredRow]:
    """Yield the rows of a file that is at their end what it was before."""
    yield from rows
    if _stamp(source) != stamp:
        raise DataError("has changed while it was read", file=str(source))


def _summarise(shards: Sequence[Shard], output: Path, model_digest: str, computed: Mapping[str, str]) -> bool:
    """Write the summary if all tables are there, as whichever worker ends last finds them."""
    summary = Summary()
    tables = {}
    for shard in shards:
        facts = read_facts(shard.target)
        if facts is None or facts["model"] != model_digest:
            return False
        # Of the other workers' files the size must do; they have compared the rest.
        if facts["source"]["bytes"] != shard.source.stat().st_size:
            return False
        summary.add_facts(facts)
        name = shard.target.relative_to(output).as_posix()
        tables[name] = {"num_rows": facts["num_rows"], "source": facts["source"]}
    whole = {"model": model_digest, **computed, **summary.report(), "tables": tables}
    write_text(output / SUMMARY_FILE, json.dumps(whole, indent=2) + "\n")
    return True
