"""Scoring a file of any length: rows in, rewards out, in order, with memory flat, and to be resumed."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from basereward.comparison import Comparison
from basereward.data.dataset import Dataset, FileDataset
from basereward.data.formats import DetectedDataset
from basereward.data.reading.paths import STANDARD_INPUT
from basereward.data.reading.row import Row
from basereward.errors import ConfigError, DataError
from basereward.protocols import Scorer
from basereward.reporting.progress import progress_bar
from basereward.scoring.ordered import CHUNK_BATCHES, Rewards, members_of, score_in_order
from basereward.storage.locks import try_lock
from basereward.storage.outputs import check_outside_models
from basereward.storage.reading import parse_json, read_lines, understood

STANDARD = "-"
"""Names standard input and standard output."""

BEGINNING = b'{"line": '
"""Begins each line of the output."""


@dataclass
class Counts:
    """Counts of the rows by their outcome.

    Attributes:
        num_scored: Rows with rewards.
        num_errors: Rows with an error in their place.
        num_skipped: Rows that an earlier run had written already.
    """

    num_scored: int = 0
    num_errors: int = 0
    num_skipped: int = 0


@dataclass(frozen=True, slots=True)
class Resume:
    """The last row of an earlier run that is kept.

    Attributes:
        num_rows: How many rows are kept.
        line: Its line in the input.
        id: Its id there.
        offset: Its end in the output.
        precision: The precision that its rewards were computed in; None where no row is kept.
    """

    num_rows: int
    line: int
    id: Any
    offset: int
    precision: str | None = None


def score_file(
    model: Scorer[list[float]],
    source: str | Path,
    target: str | Path,
    *,
    dataset: Dataset | None = None,
    batch_size: int = 8,
    resume: bool = False,
    overwrite: bool = False,
    members: bool = False,
    progress: bool = True,
) -> Counts:
    """Score each row of a file, ranked or not.

    For each row one line of JSON is written, some batches at a time: `line` and, if the row has one, `id`,
    with `rewards`, one a response, or with `error` where the row can't be read or scored. Where the model
    computes in another precision than fp32, each line has `precision`.

    Args:
        model: Scores.
        source: JSONL, gzipped or not, or Parquet; "-" for JSONL on standard input.
        target: The file to write; "-" for standard output.
        dataset: Reads the source; if not given, each row's format is recognized by its fields.
        batch_size: Comparisons a forward pass; the rewards don't depend on it.
        resume: Whether to continue the `target` that an earlier run with the same model, input and batch
            size has left; the file becomes what it would have been without the interruption.
        overwrite: Whether to replace a target that holds something.
        members: Whether a line has the rewards of an ensemble's members and their disagreement, too.
        progress: Whether to show a progress bar on standard error.

    Raises:
        DataError: When the input as a whole can't be read; the rows up to there are written.
        ConfigError: When the target must not be written, or is not of this input.
    """
    start = resume_point(source, target, batch_size=batch_size, resume=resume, overwrite=overwrite)
    precision = model.computed.get("precision", "fp32")
    if start is not None and start.precision not in (None, precision):
        raise ConfigError(
            f"{target} was computed in {start.precision}, not {precision}; "
            f"--precision {start.precision} goes on with it, and --overwrite replaces it"
        )
    mark = {} if precision == "fp32" else {"precision": precision}
    dataset = dataset or DetectedDataset(source)
    rows = InputRows(dataset, start)
    counts = Counts()
    with (
        _opened(target, start) as output,
        progress_bar("scoring", dataset.num_rows, is_shown=progress) as advance,
    ):
        for line, name, result in rows.scored(model, batch_size=batch_size, advance=advance):
            record: dict[str, Any] = {"line": line} if name is None else {"line": line, "id": name}
            if isinstance(result, DataError):
                record["error"] = str(result)
                counts.num_errors += 1
            else:
                record |= {"rewards": result, **(members_of(result) if members else {})}
                counts.num_scored += 1
            output.write(json.dumps({**record, **mark}, ensure_ascii=False).encode() + b"\n")
            output.flush()
    counts.num_skipped = rows.num_skipped
    return counts


class ScoredRow(NamedTuple):
    """A row of the input: its line, its id if it has one, and its rewards or why it has none."""

    line: int
    id: Any
    result: Rewards | DataError


class InputRows:
    """The rows of one file on their way through a model.

    Args:
        dataset: Reads the file.
        start: The last row that was scored before; None to score all.

    Attributes:
        num_skipped: Rows that were scored before.

    Raises:
        ConfigError: When the dataset reads several files, whose lines could not be told apart.
    """

    def __init__(self, dataset: Dataset, start: Resume | None = None) -> None:
        self.dataset = dataset
        self.source = ""
        if isinstance(dataset, FileDataset):
            if len(dataset.files) > 1:
                names = ", ".join(file.name for file in dataset.files[:3])
                raise ConfigError(f"{dataset.path} has several files ({names}); score one of them")
            self.source = "standard input" if dataset.files == [STANDARD_INPUT] else str(dataset.path)
        self.start = start
        self.num_skipped = 0
        self._keys: deque[tuple[int, Any]] = deque()
        self._failure: DataError | None = None

    def scored(
        self, model: Scorer[list[float]], *, batch_size: int, advance: Callable[[], object] = lambda: None
    ) -> Iterator[ScoredRow]:
        """Yield each row with its rewards, in order.

        Raises:
            DataError: At the end, when the input as a whole can't be read further, or for a row that can't be
                read where the dataset's `on_bad_row` is "fail".
            ConfigError: When it is not the input that was scored before.
        """
        for item, result in score_in_order(model, self._items(), batch_size=batch_size, advance=advance):
            error = item if isinstance(item, DataError) else result
            if isinstance(error, DataError):
                result = DataError(error.reason, field=error.field)
            yield ScoredRow(*self._keys.popleft(), result)
        if self._failure is not None:
            raise self._failure

    def _items(self) -> Iterator[Comparison | DataError]:
        try:
            for line, name, item in self._remaining():
                if isinstance(item, DataError) and self.dataset.on_bad_row == "fail":
                    raise item
                self._keys.append((line, name))
                yield item
        except DataError as error:
            # Kept until the rows before it are scored.
            self._failure = error.at(file=self.source)

    def _remaining(self) -> Iterator[tuple[int, Any, Comparison | DataError]]:
        """Yield line, id and content of each row that is still to be scored."""
        num_before = 0 if self.start is None else self.start.num_rows
        line = 0
        for line, name, convert in self._read():
            if self.num_skipped == num_before:
                yield line, name, convert()
                continue
            self.num_skipped += 1
            if self.num_skipped == num_before:
                self._check(line, name)
        if self.num_skipped < num_before:
            assert self.start is not None
            raise ConfigError(
                f"the output goes up to line {self.start.line}, but {self.source} ends at line {line}; "
                "it is not of this input"
            )

    def _read(self) -> Iterator[tuple[int, Any, Callable[[], Comparison | DataError]]]:
        """Yield line, id and what converts it of each row: those that are skipped need no conversion."""
        dataset = self.dataset
        if isinstance(dataset, FileDataset) and dataset.is_rowwise:
            for row in dataset.rows():
                yield row.line, _id(row.row), partial(dataset.comparison, *row)
            return
        for number, item in enumerate(dataset.read(), start=1):
            if isinstance(item, DataError):
                yield item.line or number, None, partial(_given, item)
            else:
                yield item.place.line or number, item.id, partial(_given, item)

    def _check(self, line: int, name: Any) -> None:
        assert self.start is not None
        if line != self.start.line:
            raise ConfigError(
                f"row {self.start.num_rows} is line {self.start.line} in the output, but line {line} in "
                f"{self.source}; it is not of this input"
            )
        if name != self.start.id:
            raise ConfigError(
                f"line {self.start.line} has the id {self.start.id!r} in the output, but {name!r} in "
                f"{self.source}; it is not of this input"
            )


def _given(item: Comparison | DataError) -> Comparison | DataError:
    return item


def _id(row: Row | DataError) -> Any:
    name = None if isinstance(row, DataError) else row.get("id")
    return name if isinstance(name, str | int | float) else None


def resume_point(
    source: str | Path, target: str | Path, *, batch_size: int, resume: bool, overwrite: bool
) -> Resume | None:
    """Check that the target may be written, and return where to resume an earlier run, if at all.

    Raises:
        ConfigError: When the target must not be written, or can't be resumed.
    """
    if target == STANDARD:
        if resume:
            raise ConfigError("standard output can't be resumed; give --output a file")
        return None
    path = Path(target)
    check_outside_models(path, "--output")
    if source != STANDARD and path.exists() and path.samefile(source):
        raise ConfigError(f"{target} is the input; give --output another file")
    if resume and path.exists() and not path.is_file():
        raise ConfigError(f"{target} is no regular file, so it can't be resumed")
    if not path.is_file() or path.stat().st_size == 0:
        return None
    if resume:
        return _last_chunk(path, batch_size * CHUNK_BATCHES)
    if not overwrite:
        raise ConfigError(f"{target} exists; --resume continues it, --overwrite replaces it")
    return None


def _last_chunk(path: Path, num_rows: int) -> Resume:
    """Return the end of the last chunk of rows that was written whole.

    What follows it is scored again: from there on, the batches are those that the earlier run would have had,
    and the rewards are the same to the last bit.

    Raises:
        ConfigError: When a line is no result of `score_file`, since what follows the chunk is cut off.
    """
    kept, offset = Resume(num_rows=0, line=0, id=None, offset=0), 0
    with understood(path, ConfigError):
        for number, line in read_lines(path):
            offset += len(line)
            if not line.endswith(b"\n") and (line.startswith(BEGINNING) or BEGINNING.startswith(line)):
                break  # a kill has cut it off
            row = _result(line)
            if row is None:
                raise ConfigError(
                    f"{path} holds a line that is no result of this command; it can't be resumed"
                )
            if number % num_rows == 0:
                kept = Resume(number, row["line"], row.get("id"), offset, row.get("precision", "fp32"))
    return kept


def _result(line: bytes) -> dict[str, Any] | None:
    """Return a line that `score_file` has written, or nothing for another."""
    try:
        row = parse_json(line.decode("utf-8"))
    except ValueError:
        return None
    is_result = (
        isinstance(row, dict) and type(row.get("line")) is int and ("rewards" in row or "error" in row)
    )
    return row if is_result and line.endswith(b"\n") else None


@contextmanager
def _opened(target: str | Path, start: Resume | None) -> Iterator[IO[bytes]]:
    if target == STANDARD:
        yield sys.stdout.buffer
        return
    try:
        # Closed by the `with` below; here only a failure to open it is caught. Nothing is cut off before the
        # lock is taken, since another process may be writing.
        file = Path(target).open("ab")  # noqa: SIM115
    except OSError as error:
        raise ConfigError(f"{target} can't be written: {error.strerror}") from error
    with file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            if try_lock(file.fileno()) is False:
                raise ConfigError(
                    f"{target} is being written by another process; wait until it ends, or name another file"
                )
            file.truncate(start.offset if start else 0)
        yield file
