"""`basereward audit`: what a reward model looks at, what it pays for, and how steady it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward.cli.command import Command
from basereward.cli.data_arguments import add_data_arguments, given_dataset, report_rejected
from basereward.cli.model_arguments import add_model_arguments, load_model, report_counts
from basereward.cli.report_output import (
    add_output_arguments,
    check_json_argument,
    claimed_directory,
    report_output,
    write_json,
)

if TYPE_CHECKING:
    import argparse

COMMAND = Command(
    description="Take from each row its best response and one of the worst; score the pair as it is, with "
    "the image, the prompt or both taken away, with edits that leave its content as it is, and with changes "
    "that mean nothing. Report what is found, by tests corrected for their number, and what to do.",
    examples="""\
  basereward audit runs/first/model --data held-out.jsonl --output audit
  basereward audit runs/first/model --data held-out.jsonl --text-model runs/text/model --rows 1000
  basereward audit longest --data held-out.jsonl --json
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_model_arguments(parser)
    parser.add_argument("--data", metavar="DATA", help="JSONL or Parquet file, or a directory of them")
    add_data_arguments(parser)
    parser.add_argument(
        "--text-model",
        metavar="MODEL",
        help="a model of text alone, which tells the pairs that need no image (default: MODEL, blind)",
    )
    parser.add_argument("--rows", metavar="N", type=int, default=500, help="rows to draw (default: 500)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the draws (default: 0)")
    add_output_arguments(parser, "where to leave report, plots and rejected rows")


def run(args: argparse.Namespace) -> int:
    """Audit, print what is found, and leave the report."""
    from basereward.evaluation.audit.report import advice_lines, finding_table, notes, save_audit
    from basereward.evaluation.audit.run import audit
    from basereward.reporting.tables import print_notes

    check_json_argument(args)
    dataset = given_dataset(args)
    output = claimed_directory(args.output)
    model = load_model(args, args.model)
    text_model = None if args.text_model is None else load_model(args, args.text_model)
    result = audit(
        model,
        dataset,
        text_model=text_model,
        text_model_name=args.text_model or f"{args.model} without images",
        max_rows=args.rows,
        batch_size=args.batch_size,
        seed=args.seed,
        progress=not args.quiet,
    )
    facts = {"audit": args.model, "data": str(args.data or args.dataset), "seed": args.seed, **model.computed}
    if output is not None:
        save_audit(result, output, facts)
    if not write_json(args.json, {**facts, **result.to_dict()}):
        finding_table(result).print()
        print()
        print_notes(notes(result))
        lines = list(advice_lines(result.flagged))
        print(f"\nfound: {len(lines)}")
        print_notes(f"  {line}" for line in lines)
    report_counts(model)
    if result.rejected:
        note = "" if output is None else f"; all in {output / 'rejected.jsonl'}"
        report_rejected(len(result.rejected), result.rejected[0], "could not be used", note)
    report_output(output)
    return 0
