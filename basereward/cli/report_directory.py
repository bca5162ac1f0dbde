"""The directory that reports are written into."""

from __future__ import annotations

import os
from pathlib import Path

from basereward.errors import ConfigError

MARK_FILE = ".basereward-report"
"""The file by which a directory is known as one of reports, whose files the next report may replace."""

OWN_NAMES = (
    "report.json",
    "report.md",
    "report.html",
    "rewards.jsonl",
    "rejected.jsonl",
    "verdicts.jsonl",
    "compare.md",
    "compare.json",
    "wrong.html",
    "wrong.png",
    "plots",
    "members",
)


def claim_directory(directory: Path) -> None:
    """Make and mark the directory of `--output`, unless it holds files of a report's names that may be
    somebody else's.

    Raises:
        ConfigError: When it does, or can't be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / MARK_FILE).is_file():
            taken = [name for name in OWN_NAMES if os.path.lexists(directory / name)]
            if taken:
                raise ConfigError(
                    f"--output {directory} holds {', '.join(taken)} and no {MARK_FILE}, so that they may be "
                    f"somebody else's; give another directory, or make {MARK_FILE} in it to replace them"
                )
            (directory / MARK_FILE).touch()
    except OSError as error:
        raise ConfigError(f"--output {directory}: can't be made: {error.strerror}") from error
