"""`basereward data`: look at preference data, convert it, and curate it before anything is trained on it."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

from basereward.cli import data_mix, data_weights
from basereward.cli.command import Command
from basereward.cli.data_arguments import (
    add_data_arguments,
    check_output,
    key_values,
    load_dataset,
    read_rows,
    report_rejected,
)
from basereward.config.conversion import Component
from basereward.errors import ConfigError, DataError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from basereward.comparison import Comparison
    from basereward.data import Dataset
    from basereward.data.conversion import Outcome
    from basereward.data.curation import Curation
    from basereward.data.writing import Writer
    from basereward.reporting.progress import Advance

COMMAND = Command(
    description="Look at preference data, convert it, and curate it.",
    examples="""\
  basereward data inspect train.jsonl --output page.html
  basereward data convert DIR --dataset rlaif-v --output rlaif-v.parquet
  basereward data dedup train.jsonl --threshold 0.8 --output unique.jsonl
  basereward data curate train.jsonl --step drop-identical --step "length-bias max_ratio=1.5"
  basereward data contamination train.jsonl --benchmark vl-rewardbench=DIR --against own-test.jsonl
  basereward data stats --run RUN.toml
  basereward data mix RUN.toml                       the held-out rows that its data.eval names
  basereward data mix RUN.toml --output mixture.jsonl
  basereward data weights TEXT_MODEL_DIR train.jsonl --output weighted.jsonl
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own commands."""
    parser.set_defaults(print_help=parser.print_help)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    inspect = _command(commands, "inspect", "show sources, lengths, ranks, ties and length bias", _inspect)
    inspect.add_argument("--output", metavar="PAGE.html", help="write a page with images of some rows too")
    inspect.add_argument(
        "--overwrite", action="store_true", help="replace the output also where it is no page of ours"
    )
    inspect.add_argument(
        "--examples", metavar="N", type=int, default=6, help="rows of each source on the page (default: 6)"
    )
    _command(commands, "stats", "print the same numbers as JSON", _stats)

    convert = _command(commands, "convert", "write the rows in our own format", _convert)
    _add_output(convert, is_required=True)

    curate = _command(commands, "curate", "put the rows through steps, and report what each did", _curate)
    curate.add_argument(
        "--step",
        metavar="'NAME KEY=VALUE ...'",
        action="append",
        default=[],
        help="a step with its options; may be repeated, in order (default: the run file's [[data.curation]])",
    )
    _add_output(curate)

    dedup = _command(commands, "dedup", "leave out rows that are the same, or nearly", _dedup)
    dedup.add_argument(
        "--threshold", type=float, metavar="J", help="Jaccard index from which on (default: 0.9)"
    )
    dedup.add_argument("--by", choices=("row", "prompt"), help="what is compared (default: row)")
    _add_distance(dedup, "default: the same file")
    _add_output(dedup)

    data_mix.add_parser(commands)
    data_weights.add_parser(commands)

    contamination = _command(
        commands, "contamination", "find rows that are in a benchmark too", _contamination
    )
    contamination.add_argument(
        "--benchmark", metavar="NAME=PATH", action="append", default=[], help="may be repeated"
    )
    contamination.add_argument(
        "--against", metavar="DATA", action="append", default=[], help="rows of your own; may be repeated"
    )
    contamination.add_argument(
        "--drop",
        choices=("any", "image", "question", "both"),
        help="which rows count: those that share any of both (default), an image, a question, or both",
    )
    contamination.add_argument(
        "--min-question-words", metavar="N", type=int, help="needed of a question alone (default: 8)"
    )
    _add_distance(contamination, "default: 6; none: the same file")
    _add_output(contamination)


def run(args: argparse.Namespace) -> int:
    """Print the help, as no command of its own is given."""
    args.print_help(sys.stderr)
    return 2


def _command(commands: Any, name: str, help: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=f"{help[0].upper()}{help[1:]}."
    )
    parser.add_argument("paths", metavar="DATA", nargs="*", help="JSONL or Parquet file, or a directory")
    parser.add_argument(
        "--run",
        metavar="RUN.toml",
        dest="run_file",
        help="the rows of a run file's training data that an epoch draws",
    )
    add_data_arguments(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)
    return parser


def _add_output(parser: argparse.ArgumentParser, *, is_required: bool = False) -> None:
    parser.add_argument(
        "--output",
        metavar="FILE",
        required=is_required,
        help="where to write the rows: NAME.jsonl or NAME.parquet; images and reports go to NAME-files",
    )
    if not is_required:
        parser.add_argument("--report", metavar="DIR", help="where to leave reports without writing the rows")
        parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--images",
        "--pictures",  # its name in scripts that were written before
        choices=("copy", "keep"),
        default="copy",
        help="copy images beside the JSONL (default), or keep files where they are",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run has written")


def _add_distance(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--max-distance",
        metavar="BITS",
        help=f"bits of 192 by which perceptual hashes of the same image may differ ({default})",
    )


def _inspect(args: argparse.Namespace) -> int:
    from pathlib import Path

    from basereward.data.report import Sample, save_report, source_table
    from basereward.data.statistics import Statistics
    from basereward.reporting.html import GENERATOR
    from basereward.storage.outputs import check_file

    datasets, title = _datasets(args)
    if args.output is not None:
        check_output(args.output, datasets, args.run_file or "")
        check_file(Path(args.output), "--output", mark=GENERATOR, overwrite=args.overwrite)
    statistics, sample = Statistics(), Sample(args.examples)
    with _progress(args, datasets) as advance:
        for row in _rows(datasets, advance):
            statistics.add(row)
            sample.add(row)
    source_table(statistics).print()
    report_rejected(statistics.rejected.total(), next(iter(sample.rejected), None), "can't be used")
    if args.output is not None:
        save_report(Path(args.output), title, statistics, sample)
        print(f"page: {args.output}", file=sys.stderr)
    return 0


def _stats(args: argparse.Namespace) -> int:
    from basereward.data.statistics import Statistics

    datasets, _ = _datasets(args)
    with _progress(args, datasets) as advance:
        statistics = Statistics().add_all(_rows(datasets, advance))
    print(json.dumps(statistics.to_dict(), ensure_ascii=False))
    return 0


def _convert(args: argparse.Namespace) -> int:
    args.report, args.json = None, False
    return _with_steps(args, [])


def _curate(args: argparse.Namespace) -> int:
    steps = []
    for text in args.step:
        name, *options = shlex.split(text) or [""]
        steps.append(Component(name, key_values(options, f"--step {name}")))
    if not steps and args.run_file is not None:
        from basereward.config.files import load_run

        steps = list(load_run(args.run_file).data.curation)
    if not steps:
        raise ConfigError("give --step NAME, or --run with a file that has [[data.curation]]")
    return _with_steps(args, steps)


def _dedup(args: argparse.Namespace) -> int:
    return _with_steps(args, [Component("near-duplicates", _given(args, "threshold", "by"))])


def _contamination(args: argparse.Namespace) -> int:
    benchmarks = key_values(args.benchmark, "--benchmark")
    if not (benchmarks or args.against):
        raise ConfigError("give --benchmark NAME=PATH, or --against PATH for rows of your own")
    options = {
        "benchmarks": [{"name": name, "path": path} for name, path in benchmarks.items()],
        "data": args.against,
        **_given(args, "drop", "min_question_words"),
    }
    return _with_steps(args, [Component("contamination", options)])


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return the options of a step that the command line sets."""
    from basereward.config.overrides import parse_value

    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.max_distance is not None:
        options["max_distance"] = parse_value(args.max_distance)
    return options


def _with_steps(args: argparse.Namespace, steps: Sequence[Component]) -> int:
    """Put the rows through steps, write what is left if asked to, and report."""
    from contextlib import nullcontext
    from pathlib import Path

    from basereward.cli.report_directory import claim_reports
    from basereward.data.conversion import convert
    from basereward.data.curation import Curation
    from basereward.data.writing import open_writer
    from basereward.plugins.plugin_manager import manager

    datasets, _ = _datasets(args)
    curation = Curation.of(steps, manager())
    if args.report is not None:
        if args.output is not None:
            raise ConfigError("--report goes without --output, which leaves the reports in NAME-files")
        claim_reports(Path(args.report), "--report")
    opened: AbstractContextManager[Writer | None] = nullcontext()
    if args.output is not None:
        check_output(args.output, datasets, *_others(args))
        opened = open_writer(Path(args.output), images=args.images, overwrite=args.overwrite)
    with opened as writer, _progress(args, datasets) as advance:
        report = None if args.report is None else Path(args.report)
        outcome = convert(_rows(datasets, advance), curation, writer, directory=report)
    if args.json:
        print(json.dumps({**outcome.to_dict(), "steps": curation.report()}, ensure_ascii=False))
    else:
        _print(curation, outcome)
    report_rejected(outcome.num_rejected, outcome.first, "can't be used")
    if writer is not None:
        print(f"{outcome.num_out:,} rows: {writer.path}; what was left out: {writer.files}", file=sys.stderr)
    elif report is not None:
        print(f"report: {report / 'report.json'}, rows: {report / 'rejected.jsonl'}", file=sys.stderr)
    return 0


def _others(args: argparse.Namespace) -> list[str]:
    """Return the other paths that are read, such as those of benchmarks."""
    benchmarks = [text.partition("=")[2] for text in vars(args).get("benchmark", [])]
    return [*benchmarks, *vars(args).get("against", []), *([args.run_file] if args.run_file else [])]


def _print(curation: Curation, outcome: Outcome) -> None:
    from basereward.reporting.tables import Row, Table, print_notes

    rows = [Row.of("read", f"{outcome.num_in:,}", "", f"{outcome.num_rejected:,}", "", "")]
    for step in curation.report():
        why = ", ".join(f"{kind} {count:,}" for kind, count in step["dropped"].items())
        numbers = (step["num_in"], step["num_changed"], sum(step["dropped"].values()), step["num_out"])
        rows.append(Row.of(step["step"], *(f"{number:,}" for number in numbers), why))
    Table(("step", "in", "changed", "dropped", "out", "why"), rows, has_text=True).print()
    for step in curation.report():
        for example in step["examples"]:
            if "dropped" in example:
                where = f"{example['file']}:{example['line']}" if example["file"] else example["id"]
                text = f"{step['step']}: {where}: {example['dropped']}"
                print_notes([text])


def _datasets(args: argparse.Namespace) -> tuple[list[Dataset], str]:
    """Open the data sets that the command line names, and return what they are called together."""
    if args.run_file is None:
        datasets = [load_dataset(args, path) for path in args.paths or [None]]
        return datasets, ", ".join(args.paths) or str(args.dataset)
    if args.paths or args.dataset or args.option or args.media_dir:
        raise ConfigError("--run names the data itself; leave out PATH, --dataset and --option")
    from basereward.config.files import load_run
    from basereward.data.mixing import epoch_parts
    from basereward.plugins.plugin_manager import manager

    run = load_run(args.run_file)
    return epoch_parts(run.data, run.seed, manager(run.plugins)), str(args.run_file)


def _progress(args: argparse.Namespace, datasets: Sequence[Dataset]) -> AbstractContextManager[Advance]:
    from basereward.reporting.progress import progress_bar

    sizes = [dataset.num_rows for dataset in datasets]
    total = sum(size for size in sizes if size is not None) if None not in sizes else None
    return progress_bar("reading", total, is_shown=not args.quiet)


def _rows(datasets: Sequence[Dataset], advance: Advance) -> Iterator[Comparison | DataError]:
    for dataset in datasets:
        for row in read_rows(dataset):
            advance()
            yield row
