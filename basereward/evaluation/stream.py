"""Scoring a file of any length: rows in, rewards out, in order, with memory flat, and to be resumed."""

from __future__ import annotations

import json
import sys
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from basereward.data.dataset import comparison_of
from basereward.data.formats import own_row
from basereward.data.reading import count_rows, read_lines, read_rows
from basereward.errors import ConfigError, DataError
from basereward.evaluation.progress import progress_bar
from basereward.evaluation.scoring import Scorer, score_in_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from basereward.comparison import Comparison
    from basereward.data.reading import Row

STANDARD = "-"
"""Names standard input and standard output."""


@dataclass
class Counts:
    """What became of the rows.

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
    """Where an earlier run stopped: the line and id of its last whole row, and the bytes up to there."""

    line: int
    id: Any
    offset: int


def score_file(
    model: Scorer,
    source: str | Path,
    target: str | Path,
    *,
    batch_size: int = 8,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Counts:
    """Score each row of a file, in our own format or TRL's, ranked or not.

    For each row one line of JSON is written, some batches at a time: `line` and, if the row has one, `id`,
    with `rewards`, one a response, or with `error` where the row can't be read or scored.

    Args:
        model: Scores.
        source: JSONL, gzipped or not, or Parquet; "-" for JSONL on standard input.
        target: The file to write; "-" for standard output.
        batch_size: Comparisons a forward pass; the rewards don't depend on it.
        resume: Whether to go on after the last whole row of `target`, which an earlier run with the same
            model and input has left.
        overwrite: Whether to replace a target that holds something.
        progress: Whether to show a progress bar on standard error.

    Raises:
        DataError: When the input as a whole can't be read; the rows up to there are written.
        ConfigError: When the target must not be written, or is not of this input.
    """
    start = _start(source, target, resume=resume, overwrite=overwrite)
    rows = _Rows(str(source), start)
    total = None if source == STANDARD else count_rows(Path(source))
    with (
        _opened(target, start) as output,
        progress_bar("scoring", total, is_shown=progress) as advance,
    ):
        for item, result in score_in_order(model, rows.items(), batch_size=batch_size):
            line, name = rows.keys.popleft()
            found: dict[str, Any] = {"line": line} if name is None else {"line": line, "id": name}
            if isinstance(item, DataError) or isinstance(result, DataError):
                error = item if isinstance(item, DataError) else result
                assert isinstance(error, DataError)
                found["error"] = str(DataError(error.reason, field=error.field))
                rows.counts.num_errors += 1
            else:
                found["rewards"] = result
                rows.counts.num_scored += 1
            output.write(json.dumps(found, ensure_ascii=False).encode() + b"\n")
            output.flush()
            advance()
    if rows.failure is not None:
        raise rows.failure
    return rows.counts


class _Rows:
    """The rows of the input as comparisons, and the keys of those that are on their way through the model."""

    def __init__(self, source: str, start: Resume | None) -> None:
        self.source = source
        self.start = start
        self.keys: deque[tuple[int, Any]] = deque()
        self.counts = Counts()
        self.failure: DataError | None = None

    def items(self) -> Iterator[Comparison | DataError]:
        directory = Path() if self.source == STANDARD else Path(self.source).parent
        name = "standard input" if self.source == STANDARD else self.source
        for line, row in self._remaining():
            if isinstance(row, DataError):
                self.keys.append((line, None))
                yield row
                continue
            self.keys.append((line, _id(row)))
            try:
                yield comparison_of(own_row(row, directory), file=name, line=line)
            except DataError as error:
                yield error.at()

    def _remaining(self) -> Iterator[tuple[int, Row | DataError]]:
        last = 0
        for line, row in self._read():
            last = line
            if self.start is None or line > self.start.line:
                yield line, row
                continue
            self.counts.num_skipped += 1
            if line == self.start.line:
                self._check(row)
        if self.failure is None and self.start is not None and last < self.start.line:
            raise ConfigError(
                f"the output goes up to line {self.start.line}, but {self.source} ends at line {last}; "
                "it is not of this input"
            )

    def _read(self) -> Iterator[tuple[int, Row | DataError]]:
        try:
            yield from (
                read_lines(sys.stdin.buffer) if self.source == STANDARD else read_rows(Path(self.source))
            )
        except DataError as error:
            # Kept until the rows before it are scored.
            self.failure = error.at(file="standard input" if self.source == STANDARD else self.source)

    def _check(self, row: Row | DataError) -> None:
        assert self.start is not None
        found = None if isinstance(row, DataError) else _id(row)
        if found != self.start.id:
            raise ConfigError(
                f"line {self.start.line} has the id {self.start.id!r} in the output, but {found!r} in "
                f"{self.source}; it is not of this input"
            )


def _id(row: Row) -> Any:
    name = row.get("id")
    return name if isinstance(name, str | int | float) else None


def _start(source: str | Path, target: str | Path, *, resume: bool, overwrite: bool) -> Resume | None:
    """Check that the target may be written, and find where an earlier run stopped."""
    if target == STANDARD:
        if resume:
            raise ConfigError("standard output can't be resumed; give --output a file")
        return None
    path = Path(target)
    if source != STANDARD and path.exists() and path.samefile(source):
        raise ConfigError(f"{target} is the input; give --output another file")
    if not path.is_file() or path.stat().st_size == 0:
        return None
    if resume:
        return _last_row(path)
    if not overwrite:
        raise ConfigError(f"{target} exists; --resume goes on with it, --overwrite replaces it")
    return None


def _last_row(path: Path) -> Resume | None:
    """Return the last row that was written whole; what a killed run wrote after it is to be cut off."""
    end = before = None
    with path.open("rb") as file:
        tail, position = b"", file.seek(0, 2)
        # From the end, since the file may be large; a row needs the line feed before it as well as its own.
        while position > 0 and before is None:
            size = min(position, 1 << 16)
            position = file.seek(position - size)
            tail = file.read(size) + tail
            end = tail.rfind(b"\n")
            before = tail.rfind(b"\n", 0, end) if end > 0 else -1
            before = None if before == -1 and position > 0 else before
    if end is None or end == -1 or before is None:
        return None
    try:
        row = json.loads(tail[before + 1 : end])
        return Resume(line=int(row["line"]), id=row.get("id"), offset=position + end + 1)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} ends with a line that is no result; it can't be resumed") from error


@contextmanager
def _opened(target: str | Path, start: Resume | None) -> Iterator[IO[bytes]]:
    if target == STANDARD:
        yield sys.stdout.buffer
        return
    try:
        # Closed by the `with` below; here only a failure to open it is caught.
        file = Path(target).open("ab" if start else "wb")  # noqa: SIM115
    except OSError as error:
        raise ConfigError(f"{target} can't be written: {error.strerror}") from error
    with file:
        if start:
            file.truncate(start.offset)
        yield file
