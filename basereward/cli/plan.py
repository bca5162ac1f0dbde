"""`basereward plan`: what a training will take, before it starts and without the model's weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basereward.cli.command import Command, add_overrides

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from basereward.config.run import RunConfig
    from basereward.costs.accelerators import Accelerator
    from basereward.planning.lengths import Lengths
    from basereward.planning.plan import Plan

GPUS = ("a100-40", "a100-80", "h100", "h200", "b200", "l40s", "rtx4090")


COMMAND = Command(
    description="Say what a training will take on some GPUs: parameters, memory of each GPU, FLOPs, time "
    "and cost. No weights are needed or loaded. Lengths are measured on the first rows of the data sets "
    "that are on this machine, and assumed of the others. Plugins that the run names are imported.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("run_file", metavar="RUN.toml", help="what is to be trained on what, and how")
    add_overrides(parser, "replace a setting of the file, such as train.parallel=fsdp")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="how many GPUs (default: 1)")
    parser.add_argument("--gpu", choices=GPUS, default="h100", help="of which kind (default: h100)")
    parser.add_argument(
        "--mfu",
        type=float,
        nargs=2,
        default=(0.25, 0.45),
        metavar=("LOW", "HIGH"),
        help="share of the GPUs' peak that the model's FLOPs reach (default: 0.25 0.45)",
    )
    parser.add_argument("--price", type=float, metavar="PRICE", help="of an hour of one GPU, for the cost")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the model's config.json, where its sizes aren't known"
    )
    for name, text in (
        ("prompt-tokens", "tokens of a prompt's text"),
        ("response-tokens", "tokens of a response"),
        ("image-tokens", "tokens of the images of a row that has some"),
        ("num-responses", "responses of a row"),
        ("num-rows", "rows of an epoch"),
    ):
        parser.add_argument(
            f"--{name}", type=int, metavar="N", help=f"{text}, instead of the measured or assumed number"
        )
    parser.add_argument("--json", action="store_true", help="print JSON, all in bytes, FLOPs and seconds")


def run(args: argparse.Namespace) -> int:
    """Print the plan of a run, or of each of its stages."""
    from basereward.config.files import load_run
    from basereward.config.run import stage_runs
    from basereward.errors import ConfigError

    config = load_run(args.run_file, args.overrides)  # before torch, whose import takes seconds
    if args.gpus < 1:
        raise ConfigError(f"--gpus is {args.gpus}; allowed: 1 or more")
    from basereward.costs.accelerators import ACCELERATORS
    from basereward.planning.lengths import Overrides
    from basereward.planning.plan import checked_mfu, plan
    from basereward.plugins.plugin_manager import manager

    gpu = ACCELERATORS[args.gpu]
    overrides = Overrides(
        args.prompt_tokens, args.response_tokens, args.image_tokens, args.num_responses, args.num_rows
    )
    stages = stage_runs(config)
    plans = [
        plan(
            stage,
            manager(config.plugins),
            gpu,
            num_gpus=args.gpus,
            mfu=checked_mfu(*args.mfu),
            overrides=overrides,
            config_file=args.config,
            progress=lambda name: print(f"reading {name}", file=sys.stderr),
        )
        for stage in stages
    ]
    if args.json:
        tables = [as_table(stage, estimate, args) for stage, estimate in zip(stages, plans, strict=True)]
        print(json.dumps(tables if config.stages else tables[0], indent=2))
        return 0
    from basereward.reporting.tables import print_notes

    for stage, estimate in zip(stages, plans, strict=True):
        print_notes(_lines(stage, estimate, gpu, args))
        if stage is not stages[-1]:
            print()
    return 0


def as_table(run: RunConfig, plan: Plan, args: argparse.Namespace) -> dict[str, Any]:
    """Return a plan as JSON can hold it."""
    from dataclasses import asdict

    table = {"run": run.output, "model": _model_name(run), "gpu": args.gpu, "gpus": args.gpus, **asdict(plan)}
    for name in ("on_average", "at_most"):
        table[name]["total"] = getattr(plan, name).total
    for name in ("with_tree", "without_tree"):
        table[name]["total"] = getattr(plan, name).total
    table |= {"fits": plan.fits, "mfu": list(args.mfu)}
    table["gpu_hours"] = [args.gpus * seconds / 3600 for seconds in plan.seconds]
    if args.price is not None:
        table["cost"] = [args.price * hours for hours in table["gpu_hours"]]
    return table


def _model_name(run: RunConfig) -> str:
    return str(run.backbone.options.get("model") or run.init)


def _lines(run: RunConfig, plan: Plan, gpu: Accelerator, args: argparse.Namespace) -> list[str]:
    peak = gpu.fp32_tflops if run.train.precision == "fp32" else gpu.bf16_tflops
    kind = "fp32" if run.train.precision == "fp32" else "dense bf16"
    number = f"{args.gpus} x " if args.gpus > 1 else ""
    return [
        f"{run.output} on {number}{gpu.title} ({gpu.memory_gb:g} GB, {peak:g} TFLOP/s in {kind})",
        "",
        f"model {_model_name(run)}; sizes: {plan.sizes_from}",
        *_parts(plan),
        "",
        *_rows(plan),
        "",
        *_memory(plan, gpu, run),
        "",
        *_compute(plan, run),
        "",
        *_time(plan, run, args),
        "",
        *_verdict(plan, args),
    ]


def _parts(plan: Plan) -> list[str]:
    lines = [f"  {'part':<12}{'parameters':>16}{'trained':>16}"]
    for name, part in plan.parts.items():
        trained = f"{part.trained:,}" if part.trained else "no"
        lines.append(f"  {name:<12}{part.parameters:>16,}{trained:>16}")
    total = sum(part.parameters for part in plan.parts.values())
    trained = f"{sum(part.trained for part in plan.parts.values()):,}"
    return [*lines, f"  {'all':<12}{total:>16,}{trained:>16}"]


def _rows(plan: Plan) -> list[str]:
    from basereward.planning.lengths import ASSUMED, ASSUMED_IMAGE

    rows = plan.rows
    height, width = ASSUMED_IMAGE
    patches = f", {rows.mean.patches:,.0f} patches of images" if rows.mean.patches else ""
    pairs = "1 pair" if rows.pairs == 1 else f"{rows.pairs:.3g} pairs"
    lines = [
        f"data: {rows.num_rows:,} rows an epoch with {pairs} each",
        f"  mean row: {rows.mean.tokens:,.0f} tokens, the prompt once{patches}",
        f"  longest row: {rows.longest.tokens:,.0f} tokens",
    ]
    if rows.measured:
        each = (f"{number} of {name}" for name, number in rows.measured.items())
        lines.append(f"  rows that were measured: {', '.join(each)}")
    if rows.assumed:
        lines += [
            f"  not on this machine: {', '.join(_short_names(rows.assumed))}",
            f"  so assumed: prompts of {ASSUMED.text_tokens} tokens, responses of {ASSUMED.responses[0]}, "
            f"images of {width} x {height}",
            *_assumed_responses(rows),
        ]
    return lines


MEMORY = {
    "weights": "weights",
    "gradients": "gradients, fp32",
    "optimizer": "optimizer",
    "averages": "averages of the weights",
    "working_weights": "weights in use",
    "activations": "activations",
    "activation_gradients": "activation gradients",
    "total": "together",
}


def _memory(plan: Plan, gpu: Accelerator, run: RunConfig) -> list[str]:
    columns = [_count(number, "row") for number in plan.rows_in_pass]
    lines = [f"memory of each GPU, GB    {'mean: ' + columns[0]:>16}{'longest: ' + columns[1]:>18}"]
    for name, title in MEMORY.items():
        values = [getattr(memory, name) / 1e9 for memory in (plan.on_average, plan.at_most)]
        if any(values):
            lines.append(f"  {title:<24}{values[0]:>16.1f}{values[1]:>18.1f}")
    return [
        *lines,
        f"  usable: {plan.usable_bytes / 1e9:.1f} of {gpu.memory_gb:g}",
        f"  logits of a language-model head, which is never run, would take {plan.logits_bytes / 1e9:.1f}",
    ]


def _compute(plan: Plan, run: RunConfig) -> list[str]:
    tree, alone = plan.with_tree, plan.without_tree
    lines = [
        f"compute, TFLOP a row{'with the tree':>22}{'a row a response':>20}",
        f"  {'forward':<18}{tree.forward / 1e12:>22.2f}{alone.forward / 1e12:>20.2f}",
        f"  {'backward':<18}{tree.backward / 1e12:>22.2f}{alone.backward / 1e12:>20.2f}",
    ]
    if tree.recomputed:
        lines.append(f"  {'recomputed':<18}{tree.recomputed / 1e12:>22.2f}{alone.recomputed / 1e12:>20.2f}")
    pairs = plan.rows.pairs
    return [
        *lines,
        f"  {'a pair':<18}{tree.total / pairs / 1e12:>22.2f}{alone.total / pairs / 1e12:>20.2f}",
        f"  the tree saves a factor of {alone.total / tree.total:.2f}",
        f"  a language-model head would add {plan.head_flops / 1e12:.2f} a row",
    ]


def _time(plan: Plan, run: RunConfig, args: argparse.Namespace) -> list[str]:
    tokens = plan.num_comparisons * plan.rows.mean.tokens
    hours = [seconds / 3600 for seconds in plan.seconds]
    low, high = args.mfu
    lines = [
        f"time: {_count(plan.num_steps, 'step')} of {run.train.batch_size} rows, "
        f"{tokens / 1e6:,.1f} million tokens",
        f"  {_range(hours)} hours at {high:.0%} to {low:.0%} of the peak, "
        f"{_range([args.gpus * each for each in hours])} GPU hours",
    ]
    if args.price is not None:
        cost = [args.price * args.gpus * each for each in hours]
        lines.append(f"  {_range(cost)} at {args.price:g} for a GPU hour")
    if plan.communication_bytes:
        lines.append(
            f"  each GPU gets {plan.communication_bytes / 1e9:.1f} GB from the others in a step, in "
            f"{plan.communication_seconds:.2g} s, at best while it computes"
        )
    lines.append("  evaluations, checkpoints and waiting for data come on top")
    if plan.busy_gpus < args.gpus:
        idle = args.gpus - plan.busy_gpus
        lines.append(f"  {_count(idle, 'GPU')} have nothing to do: a batch has {run.train.batch_size} rows")
    return lines


def _verdict(plan: Plan, args: argparse.Namespace) -> list[str]:
    usable = plan.usable_bytes
    if plan.fits:
        return [f"It fits: at most {plan.at_most.total / 1e9:.1f} of {usable / 1e9:.1f} GB."]
    if plan.on_average.total <= usable:
        lines = ["It fits rows of mean length, and not the longest ones."]
    else:
        lines = [f"It doesn't fit: {plan.on_average.total / 1e9:.1f} GB and more, of {usable / 1e9:.1f}."]
    if not plan.changes:
        return [
            *lines,
            "No setting that plan knows of makes it fit; take more or larger GPUs, or shorter rows.",
        ]
    lines.append("It would take at most, with:")
    for change in plan.changes:
        settings = " ".join(f"--set {setting}" for setting in change.settings)
        lines.append(f"  {change.bytes_on_gpu / 1e9:.1f} GB  {settings}")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _range(values: list[float]) -> str:
    """Return two numbers with as many digits as mean something."""
    low, high = (f"{value:,.0f}" if value >= 100 else f"{value:.2g}" for value in values)
    return f"{low} to {high}"


def _assumed_responses(rows: Lengths) -> list[str]:
    """Return lines that say how many responses a comparison is assumed to have."""
    published: dict[int, list[str]] = {}
    unknown: list[str] = []
    for name, responses in rows.assumed.items():
        (published.setdefault(responses.number, []) if responses.is_published else unknown).append(name)
    # The most common number needs no names.
    common = max(published, key=lambda number: len(published[number]), default=None)
    parts = [] if common is None else [f"{common}"]
    parts += [
        f"{number} of {', '.join(_short_names(names))}"
        for number, names in published.items()
        if number != common
    ]
    lines = [f"  responses of a row, as published: {'; '.join(parts)}"] if parts else []
    if unknown:
        number = rows.assumed[unknown[0]].number
        lines.append(
            f"  responses of {', '.join(_short_names(unknown))}: not known, {number} assumed; "
            "say how many by --num-responses"
        )
    return lines


def _short_names(names: Iterable[str]) -> list[str]:
    """Return names of data sets without their paths, each once."""
    return list(dict.fromkeys(name.partition(" ")[0] for name in names))
