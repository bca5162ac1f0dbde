"""Scoring a file of any length: rows in, rewards out, in order, with memory flat, and to be resumed."""

from __future__ import annotations

import json
import sys
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from basereward.data.dataset import comparison_of
from basereward.data.formats import own_row
from basereward.data.media_paths import Media
from basereward.data.reading.rows import count_rows, read_lines, read_rows
from basereward.errors import ConfigError, DataError
from basereward.reporting.progress import progress_bar
from basereward.scoring.ordered import CHUNK_BATCHES, Rewards, Scorer, members_of, score_in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from basereward.comparison import Comparison
    from basereward.data.reading.row import Row

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
    """The last row of an earlier run that is kept: line and id in the input, end in the output."""

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
    members: bool = False,
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
        resume: Whether to go on with the `target` that an earlier run with the same model, input and batch
            size has left; the file becomes what it would have been without the interruption.
        overwrite: Whether to replace a target that holds something.
        members: Whether a line has the rewards of an ensemble's members and their disagreement, too.
        progress: Whether to show a progress bar on standard error.

    Raises:
        DataError: When the input as a whole can't be read; the rows up to there are written.
        ConfigError: When the target must not be written, or is not of this input.
    """
    start = resume_point(source, target, batch_size=batch_size, resume=resume, overwrite=overwrite)
    rows = InputRows(str(source), start)
    counts = Counts()
    total = None if source == STANDARD else count_rows(Path(source))
    with (
        _opened(target, start) as output,
        progress_bar("scoring", total, is_shown=progress) as advance,
    ):
        for line, name, result in rows.scored(model, batch_size=batch_size, advance=advance):
            found: dict[str, Any] = {"line": line} if name is None else {"line": line, "id": name}
            if isinstance(result, DataError):
                found["error"] = str(result)
                counts.num_errors += 1
            else:
                found |= {"rewards": result, **(members_of(result) if members else {})}
                counts.num_scored += 1
            output.write(json.dumps(found, ensure_ascii=False).encode() + b"\n")
            output.flush()
    counts.num_skipped = rows.num_skipped
    return counts


class ScoredRow(NamedTuple):
    """A row of the input: its line, its id if it has one, and its rewards or why it has none."""

    line: int
    id: Any
    result: Rewards | DataError


class InputRows:
    """The rows of a file on their way through a model.

    Args:
        source: The file; "-" for JSONL on standard input.
        start: The last row that was scored before; None to score all.

    Attributes:
        num_skipped: Rows that were scored before.
    """

    def __init__(self, source: str, start: Resume | None = None) -> None:
        self.source = source
        self.start = start
        self.num_skipped = 0
        self._keys: deque[tuple[int, Any]] = deque()
        self._failure: DataError | None = None

    def scored(
        self, model: Scorer, *, batch_size: int, advance: Callable[[], object] = lambda: None
    ) -> Iterator[ScoredRow]:
        """Yield each row with its rewards, in order.

        Raises:
            DataError: At the end, when the input as a whole can't be read further.
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
        directory = Path() if self.source == STANDARD else Path(self.source).parent
        # Whoever runs this wrote the input, so its images may lie anywhere.
        media = Media(directory, roots=("/",))
        name = "standard input" if self.source == STANDARD else self.source
        for line, row in self._remaining():
            if isinstance(row, DataError):
                self._keys.append((line, None))
                yield row
                continue
            self._keys.append((line, _id(row)))
            yield comparison_or_error(row, media, directory, file=name, line=line)

    def _remaining(self) -> Iterator[tuple[int, Row | DataError]]:
        last = 0
        for line, row in self._read():
            last = line
            if self.start is None or line > self.start.line:
                yield line, row
                continue
            self.num_skipped += 1
            if line == self.start.line:
                self._check(row)
        if self._failure is None and self.start is not None and last < self.start.line:
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
            self._failure = error.at(file="standard input" if self.source == STANDARD else self.source)

    def _check(self, row: Row | DataError) -> None:
        assert self.start is not None
        found = None if isinstance(row, DataError) else _id(row)
        if found != self.start.id:
            raise ConfigError(
                f"line {self.start.line} has the id {self.start.id!r} in the output, but {found!r} in "
                f"{self.source}; it is not of this input"
            )


def comparison_or_error(
    row: Row, media: Media, directory: Path, *, file: str, line: int
) -> Comparison | DataError:
    """Return a row in our own format or TRL's as a comparison, or why it is none."""
    try:
        return comparison_of(media.located(own_row(row), directory), file=file, line=line)
    except DataError as error:
        return error.at()


def _id(row: Row) -> Any:
    name = row.get("id")
    return name if isinstance(name, str | int | float) else None


def resume_point(
    source: str | Path, target: str | Path, *, batch_size: int, resume: bool, overwrite: bool
) -> Resume | None:
    """Check that the target may be written, and return where an earlier run is to be gone on with, if at all.

    Raises:
        ConfigError: When the target must not be written, or can't be resumed.
    """
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
        return _last_chunk(path, batch_size * CHUNK_BATCHES)
    if not overwrite:
        raise ConfigError(f"{target} exists; --resume goes on with it, --overwrite replaces it")
    return None


def _last_chunk(path: Path, num_rows: int) -> Resume | None:
    """Return the end of the last chunk of rows that was written whole.

    What follows it is scored again: from there on, the batches are those that the earlier run would have had,
    and the rewards are the same to the last bit.
    """
    last, end, offset = b"", 0, 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            offset += len(line)
            if number % num_rows == 0 and line.endswith(b"\n"):
                last, end = line, offset
    if not last:
        return Resume(line=0, id=None, offset=0)
    try:
        row = json.loads(last)
        return Resume(line=int(row["line"]), id=row.get("id"), offset=end)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} holds a line that is no result of this command; it can't be resumed"
        ) from error


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
