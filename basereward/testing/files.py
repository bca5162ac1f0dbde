"""Files that a dataset or a benchmark reads, spoiled in ways that must not go unnoticed."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from basereward.testing.subject import Subject, does_not_apply

GARBAGE = random.Random(0).randbytes(400)


def path_of(subject: Subject) -> Path:
    """Return the path among a component's options; the check ends where there is none."""
    path = subject.options.get("path")
    if path is None:
        does_not_apply("it reads no file")
    return Path(str(path))


def with_a_bad_row(subject: Subject) -> Path:
    """Return a copy of a component's files, the first of which has one more row, which is none.

    The check ends where the files don't lie in the component's own directory, or are of no known format.
    """
    path = path_of(subject)
    if not path.is_relative_to(subject.directory):
        does_not_apply("its files lie outside the directory that its function of options is given")
    copy = subject.fresh_directory("bad-row") / "copy"
    shutil.copytree(subject.directory, copy, ignore=shutil.ignore_patterns(".*"))
    moved = copy / path.relative_to(subject.directory)
    files = [moved] if moved.is_file() else sorted(path for path in moved.rglob("*") if path.is_file())
    files = [file for file in files if file.suffix in WRITERS]
    if not files:
        does_not_apply(f"no file of it ends in {', '.join(WRITERS)}")
    WRITERS[files[0].suffix](files[0])
    return moved


def _line(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    file.write_text(text + "\n" * (not text.endswith("\n")) + '{"this": is no row\n', encoding="utf-8")


def _json(file: Path) -> None:
    rows = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        does_not_apply(f"{file.name} holds no list of rows")
    file.write_text(json.dumps([*rows, {}]), encoding="utf-8")


def _parquet(file: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(file)
    nothing = pyarrow.Table.from_pylist([dict.fromkeys(table.column_names)], table.schema)
    pyarrow.parquet.write_table(pyarrow.concat_tables([table, nothing]), file)


WRITERS = {
    ".jsonl": _line,
    ".json": _json,
    ".parquet": _parquet,
    ".csv": _line,
    ".tsv": _line,
    ".txt": _line,
}
"""Functions that add an invalid row to a file, by its suffix."""
