"""`basereward data mix`: from a run file to its mixture and its held-out rows."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from basereward.cli.command import add_overrides
from basereward.cli.data_arguments import check_output
from basereward.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from basereward.config.run import RunConfig
    from basereward.data.mixing import Mixing

NUM_HELD_OUT = 1000

DESCRIPTION = (
    "Draw held-out rows evenly from the training data of a run file, and write them to the file that its "
    "data.eval names; with --output, write an epoch's rows without those of a prompt that is held out. "
    "NAME-files/report.json beside each file counts the rows of each data set."
)


def add_parser(commands: Any) -> None:
    """Add the command to those of `basereward data`."""
    parser = commands.add_parser(
        "mix", help="draw a run's held-out rows, and write its mixture without them", description=DESCRIPTION
    )
    parser.add_argument("run_file", metavar="RUN.toml", help="the run whose training data is drawn from")
    add_overrides(parser, "replace a setting of the run, such as data.train.0.max_rows=1000")
    parser.add_argument("--stage", metavar="NAME", help="the stage to take, of a run that has several")
    parser.add_argument(
        "--held-out", metavar="FILE", help="where to write the held-out rows (default: the path of data.eval)"
    )
    parser.add_argument(
        "--num-held-out", metavar="N", type=int, default=NUM_HELD_OUT, help=f"default: {NUM_HELD_OUT:,}"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="where to write the mixture: NAME.jsonl or NAME.parquet"
    )
    parser.add_argument(
        "--images",
        choices=("copy", "keep"),
        default="copy",
        help="copy images beside the JSONL (default), or keep files where they are",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run has written")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write both files, and print what each data set gave."""
    from contextlib import ExitStack
    from pathlib import Path

    from basereward.config.files import load_run
    from basereward.data.conversion import REPORT_FILE
    from basereward.data.mixing import Mixing
    from basereward.data.writing import open_writer
    from basereward.plugins.plugin_manager import manager
    from basereward.reporting.progress import progress_bar
    from basereward.storage.atomic import write_text

    if args.num_held_out < 1:
        raise ConfigError(f"--num-held-out is {args.num_held_out}; allowed: 1 or more")
    config = _stage(load_run(args.run_file, args.overrides), args.stage)
    held_out = Path(args.held_out or _eval_path(config))
    outputs = [held_out, *([Path(args.output)] if args.output else [])]
    if len(set(outputs)) < len(outputs):
        raise ConfigError(f"--output and the held-out rows are one file, {held_out}; name two")
    is_shown = not args.quiet and sys.stderr.isatty()
    mixing = Mixing.open(config.data, config.seed, manager(config.plugins))
    with ExitStack() as stack:
        writers = []
        for path, option in zip(outputs, ("--held-out", "--output"), strict=False):
            check_output(path, mixing.datasets, args.run_file, option=option)
        for path in outputs:  # all at first, so that one that can't be written is told before the work
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = open_writer(path, images=args.images, overwrite=args.overwrite)
            writers.append(stack.enter_context(writer))
        mixing.hold_out(args.num_held_out, writers[0])
        for writer in writers[1:]:
            with progress_bar("writing", mixing.num_asked, is_shown=is_shown) as advance:
                mixing.write(writer, advance)
    report = _report(config, mixing, outputs)
    text = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
    for path in outputs:
        write_text(path.with_name(f"{path.name}-files") / REPORT_FILE, text)
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        _print(report)
    return 0


def _stage(config: RunConfig, name: str | None) -> RunConfig:
    from basereward.config.run import stage_runs

    if name is None and not config.stages:
        return config
    names = [stage.name for stage in config.stages]
    if name not in names:
        given = "the run has stages; name one by --stage" if name is None else f"--stage is {name!r}; stages"
        raise ConfigError(f"{given}: {', '.join(names) or '(none)'}")
    return stage_runs(config)[names.index(name)]


def _eval_path(config: RunConfig) -> str:
    for component in config.data.eval:
        path = str(component.options.get("path", ""))
        if component.name == "basereward" and path.endswith((".jsonl", ".parquet")):
            return path
    raise ConfigError(
        "the run names no held-out file of our own format; give --held-out FILE, and name it in [[data.eval]]"
    )


def _report(config: RunConfig, mixing: Mixing, outputs: list[Path]) -> dict[str, Any]:
    import hashlib
    from dataclasses import asdict

    files = []
    sources = [asdict(count) for count in mixing.counts]
    for path, kind in zip(outputs, ("held_out", "written"), strict=False):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        num_rows = sum(source[kind] for source in sources)
        files.append({"path": str(path), "rows": num_rows, "sha256": digest})
    return {"seed": config.seed, "files": files, "sources": sources}


def _print(report: dict[str, Any]) -> None:
    from basereward.reporting.tables import Row, Table

    columns = ("size", "asked", "held_out", "written", "excluded", "left_out")
    titles = ("data set", "rows", "of an epoch", "held out", "written", "prompt held out", "left out")
    sources = report["sources"]
    rows = [
        Row.of(f"{source['name']} {source['path']}", *(f"{source[column]:,}" for column in columns))
        for source in sources
    ]
    sums = (sum(source[column] for source in sources) for column in columns)
    rows.append(Row.of("all", *(f"{value:,}" for value in sums)))
    Table(titles, rows).print()
    for file in report["files"]:
        print(f"{file['rows']:,} rows: {file['path']}, sha256 {file['sha256']}", file=sys.stderr)
