"""The places that reports are written to, where nothing of somebody else is replaced."""

from __future__ import annotations

from pathlib import Path

from basereward.errors import ConfigError
from basereward.storage.outputs import check_outside_models, claim_directory
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
    {"benchmarks"},
)
"""Keys of the reports that `--json` writes: of a model, a benchmark, a comparison of models, an audit,
and several benchmarks."""


def check_json(path: Path) -> None:
    """Check that `--json` may write a file: a new one, or one in the place of an earlier report.

    Raises:
        ConfigError: When it would replace something else, or lie in a model's directory.
    """
    check_outside_models(path, "--json")
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


def claim_reports(directory: Path, option: str = "--output") -> None:
    """Make and mark a directory of reports.

    Raises:
        ConfigError: When it holds files of a report's names that may be somebody else's, or is a model's.
    """
    claim_directory(directory, option, mark=MARK_FILE, names=OWN_NAMES)
