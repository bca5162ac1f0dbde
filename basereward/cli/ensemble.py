"""`basereward ensemble`: several models as one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from basereward.cli.command import Command, add_overrides
from basereward.cli.data_arguments import add_data_arguments, key_values, load_dataset, report_rejected
from basereward.cli.model_arguments import (
    add_judge_arguments,
    add_running_arguments,
    check_batch_size,
    hide_transformers_progress,
    limit_batches,
    report_precision,
    writer_options,
)
from basereward.config.conversion import Component
from basereward.errors import ConfigError
from basereward.storage.outputs import check_model_output

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from basereward.comparison import Comparison
    from basereward.scoring.ensemble import Ensemble

FIT_ROWS = 1000
"""The default of arXiv 2509.16127, section 4.7."""

COMMAND = Command(
    description="Join models into one, in a directory that is evaluated, scores and serves like theirs.",
    examples="""\
  basereward ensemble runs/qwen/model runs/intern/model --output both
  basereward ensemble runs/*/model --ensembler confidence-weighted --fit held-out.jsonl --output weighted
  basereward ensemble runs/*/model --ensembler mean-minus-std --set coefficient=0.5 --output careful
  basereward ensemble runs/qwen/model judge.toml --ensembler z-mean --fit held-out.jsonl --output judged
  basereward evaluate both --data pairs.jsonl
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "members",
        metavar="MODEL",
        nargs="+",
        help="a model directory, such as a run's `model`; or a judge's TOML file, judge+http://HOST:PORT/v1, "
        "or decisions+http://HOST:PORT/v1",
    )
    parser.add_argument("--output", "-o", metavar="DIR", required=True, help="where to write the ensemble")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    parser.add_argument(
        "--ensembler", metavar="NAME", default="mean", help="how rewards are joined (default: mean)"
    )
    add_overrides(parser, "an option of the ensembler, such as coefficient=0.5")
    fitting = parser.add_argument_group("fitting")
    fitting.add_argument(
        "--fit",
        metavar="DATA",
        help="comparisons of known order that no member was trained on: members are measured on them, and "
        "ensemblers that learn learn from them",
    )
    fitting.add_argument(
        "--fit-rows", metavar="N", type=int, default=FIT_ROWS, help="how many are drawn (default: 1000)"
    )
    fitting.add_argument("--seed", metavar="N", type=int, default=0, help="which are drawn (default: 0)")
    add_data_arguments(fitting)
    add_judge_arguments(parser)
    add_running_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Make the ensemble, and print what its members are like."""
    from basereward.plugins.plugin_manager import manager

    check_batch_size(args)
    output = Path(args.output)
    check_model_output(output, args.members, overwrite=args.overwrite)
    options = {
        key.removeprefix("ensembler."): value for key, value in key_values(args.overrides, "--set").items()
    }
    component = Component(args.ensembler, options)
    plugins = manager()
    plugins.resolve("ensembler", component)
    if args.fit is None and plugins.load("ensembler", args.ensembler).learns:
        raise ConfigError(f"ensembler {args.ensembler!r} learns from comparisons; give --fit DATA")
    if args.fit_rows < 1:
        raise ConfigError(f"--fit-rows is a number of comparisons >= 1, not {args.fit_rows}")
    # Before the models are loaded, which may take minutes.
    rows = None if args.fit is None else _drawn(args)
    from basereward.scoring.ensemble import Ensemble

    hide_transformers_progress()
    made = Ensemble.of(
        args.members,
        component,
        device=args.device,
        precision=args.precision,
        plugins=plugins,
        writer_options=writer_options(args),
    )
    report_precision(made)
    limit_batches(made, args)
    if rows is not None:
        _fit(args, made, rows)
    made.save(output, **({} if rows is None else {"fit_data": args.fit}))
    _print(made)
    print(f"ensemble: {output}")
    return 0


def _drawn(args: argparse.Namespace) -> list[Comparison]:
    """Return the comparisons to fit on, and say which rows could not be read."""
    from basereward.data.sampling import sample

    dataset = load_dataset(args, args.fit)
    rows = sample(dataset, args.fit_rows, args.seed)
    report_rejected(len(dataset.rejected), next(iter(dataset.rejected), None))
    return rows


def _fit(args: argparse.Namespace, made: Ensemble, rows: Sequence[Comparison]) -> None:
    from basereward.reporting.progress import progress_bar

    with progress_bar("fitting", len(rows), is_shown=not args.quiet) as advance:
        made.fit(rows, batch_size=args.batch_size, advance=advance)
    fit = made.record["fit"]
    if not args.quiet:
        left_out = f", {fit['num_left_out']:,} left out" if fit["num_left_out"] else ""
        print(f"fitted on {fit['num_comparisons']:,} comparisons{left_out}", file=sys.stderr)


def _print(made: Ensemble) -> None:
    from basereward.reporting.tables import Row, Table

    weights = (
        {}
        if made.state is None
        else dict(zip(made.members.names, made.state.get("weights", ()), strict=False))
    )
    titles = ["member"]
    if made.measured:
        titles += ["accuracy", "scale", *(["weight"] if weights else [])]
    rows = []
    for name in made.members.names:
        statistics = made.measured.get(name)
        cells = ["", ""] if statistics is None else [f"{statistics.accuracy:.3f}", f"{statistics.scale:.3g}"]
        cells += [f"{weights[name]:.3g}"] if weights else []
        rows.append(Row.of(name, *(cells if made.measured else [])))
    Table(titles, rows).print()
