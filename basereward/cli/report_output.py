"""The report of a command that evaluates: where it goes, and what of it is printed."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from basereward.cli.data_arguments import report_rejected
from basereward.errors import ConfigError
from basereward.storage.atomic import write_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from basereward.errors import DataError
    from basereward.evaluation import Evaluation

STANDARD = "-"


def add_output_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--output`, whose help is given, and `--json`."""
    parser.add_argument("--output", metavar="DIR", help=what)
    parser.add_argument(
        "--json",
        metavar="FILE",
        nargs="?",
        const=STANDARD,
        help="write JSON to the file; without one, print JSON instead of a table",
    )


def check_json_argument(args: argparse.Namespace) -> None:
    """Refuse a `--json` that would replace something else than a report."""
    if args.json not in (None, STANDARD):
        from pathlib import Path

        from basereward.cli.report_directory import check_json

        check_json(Path(args.json))


def claimed_directory(output: str | None) -> Path | None:
    """Claim the output directory now, rather than find out after the scoring that it can't be written."""
    from pathlib import Path

    from basereward.cli.report_directory import claim_reports

    if output is None:
        return None
    claim_reports(Path(output))
    return Path(output)


def write_json(target: str | None, report: Mapping[str, Any]) -> bool:
    """Write JSON where it was asked for; tell whether that was standard output."""
    from pathlib import Path

    if target == STANDARD:
        print(json.dumps(report, ensure_ascii=False))
    elif target is not None:
        write_text(Path(target), json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return target == STANDARD


def digest_fact(name: str) -> dict[str, str]:
    """Return the digest of a model's directory as an entry of a report; nothing of what has no directory."""
    from pathlib import Path

    if not Path(name).is_dir():
        return {}
    from basereward.storage.model_directory import digest_of  # which imports torch

    digest = digest_of(Path(name))
    return {"digest": digest} if digest else {}


def report_rejected_rows(rejected: Sequence[DataError], where: str) -> None:
    """Print to standard error how many rows were rejected, and where they are listed."""
    if rejected:
        note = f"; all in {where}" if where else "; --output DIR lists them all"
        report_rejected(len(rejected), rejected[0], note=note)


def report_output(output: Path | None) -> None:
    """Print to standard error where the report is, if there is one."""
    if output is None:
        return
    name = "report.html" if (output / "report.html").is_file() else "report.md"
    print(f"report: {output / name}", file=sys.stderr)


def print_metrics(evaluation: Evaluation) -> None:
    """Print the metrics that any data has."""
    from basereward.evaluation.report import metric_table

    metric_table(evaluation).print(show_titles=False, styles=("", "bold", "dim"))


def gaps_of(text: str | None) -> tuple[float, ...]:
    """Return the rating gaps of `--gaps`.

    Raises:
        ConfigError: When they are no numbers.
    """
    from basereward.evaluation.metrics import GAPS

    try:
        return GAPS if text is None else tuple(sorted(float(gap) for gap in text.split(",")))
    except ValueError as error:
        raise ConfigError(f"--gaps {text}: write numbers, such as 0.5,1.5,3") from error
