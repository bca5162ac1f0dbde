"""The places that reports are written to, where nothing of somebody else is replaced."""

from __future__ import annotations

import os
from pathlib import Path

from basereward.errors import ConfigError
from basereward.storage.reading import read_json

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


REPORT_KEYS = (
    {"model", "data", "num_pairs", "num_rejected"},
    {"benchmark", "data", "official_size", "models"},
    {"first", "second", "num_left_out", "differences"},
    {"audit", "data", "findings", "num_rejected"},
)
"""Keys of the reports that `--json` writes: of a model, a benchmark, a comparison of models, and an audit."""

MODEL_FILE = "reward_config.json"


def check_json(path: Path) -> None:
    """Check that `--json` may write a file: a new one, or one in the place of an earlier report.

    Raises:
        ConfigError: When it would replace something else, or lie in a model's directory.
    """
    _check_outside_models(path, "--json")
    if path.is_dir():
        raise ConfigError(f"--json {path} is a directory; name a file")
    if not path.is_file() or path.stat().st_size == 0:
        return
    try:
        report = read_json(path)
    except (OSError, ValueError):
        report = None
    if not isinstance(report, dict) or not any(keys <= report.keys() for keys in REPORT_KEYS):
        raise ConfigError(
            f"--json {path} exists and is no report of this command; name another file, or remove it yourself"
        )


def _check_outside_models(path: Path, option: str) -> None:
    """Refuse a place in the directory of a model, which can't be loaded with a file too many."""
    for directory in (path.resolve(), *path.resolve().parents):
        if (directory / MODEL_FILE).is_file():
            raise ConfigError(f"{option} {path}: {directory} is the directory of a model; name another place")


def claim_directory(directory: Path) -> None:
    """Make and mark the directory of `--output`, unless it holds files of a report's names that may be
    somebody else's, or is a model's.

    Raises:
        ConfigError: When it does, or can't be made.
    """
    _check_outside_models(directory, "--output")
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
