"""`basereward import`: a checkpoint of another tool as a model directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from basereward.cli.command import Command, add_overrides
from basereward.cli.data_arguments import key_values
from basereward.errors import ConfigError
from basereward.storage.outputs import check_model_output
from basereward.storage.reading import read_bytes

MAX_TEMPLATE_BYTES = 16 * 2**20
"""Bytes that a chat template may have."""

COMMAND = Command(
    help="read a reward model of another tool",
    description="Write a checkpoint of TRL, transformers, ms-swift, LLaMA-Factory, Skywork-VL-Reward or "
    "MM-RLHF as a model directory. Its head must be under one of their names. InternVL and LLaVA-OneVision "
    "are read in their authors' layouts, too.",
    examples="""\
  basereward import Skywork-VL-Reward-7B --output model
  basereward import trl-reward-model --output model --read-bin
  basereward import lora-checkpoint --base Qwen2.5-VL-7B-Instruct --output model
  basereward import R1-Reward --judge r1-reward --set reading=r1-reward --output judge
  basereward import UnifiedReward-qwen-7b --judge unified-reward --set reading=unified-reward --output judge
  basereward import UnifiedReward-qwen-7b --judge unified-reward-score --output rater
  basereward import MM-RLHF-Reward-7B-llava-ov-qwen --critic mm-rlhf --option tiling=whole --output critic
  basereward import InternVL3-8B --plain --output InternVL3-8B-hf
  basereward import reward-model-without-template --chat-template template.jinja --output model
""",
)


_FOR_HEADS = {"--base": "base", "--read-bin": "read_bin", "--chat-template": "chat_template"}

_WAYS = {"--judge": "judge", "--critic": "critic", "--plain": "plain"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "source", metavar="DIR", help="a directory with a transformers model, or a LoRA adapter, and its head"
    )
    parser.add_argument("--output", metavar="DIR", required=True, help="the model directory")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is there")
    parser.add_argument("--base", metavar="DIR", help="the model that an adapter was trained on")
    parser.add_argument(
        "--backbone", metavar="NAME", help="the backbone that reads it (default: by its model type)"
    )
    parser.add_argument(
        "--judge",
        metavar="TEMPLATE",
        help="read a language model that gives verdicts or ratings, asked by this judge template, such as "
        "reasoned or unified-reward-score",
    )
    parser.add_argument(
        "--critic",
        metavar="TEMPLATE",
        help="read a model that writes a critique before its head reads the reward, asked by this judge "
        "template, such as mm-rlhf",
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="write the model alone in transformers' layout, for the backbone of a run file; it has its "
        "authors' (InternVL, LLaVA-OneVision)",
    )
    add_overrides(parser, "an option of the judge or the critic, such as max_answer_tokens=2048")
    parser.add_argument(
        "--option",
        metavar="KEY=VALUE",
        dest="options",
        action="append",
        default=[],
        help="an option of the backbone, such as dtype=bfloat16; may be repeated",
    )
    parser.add_argument(
        "--read-bin", action="store_true", help="read heads in pickled files too, tensors only"
    )
    parser.add_argument(
        "--chat-template",
        type=Path,
        metavar="FILE",
        help="the chat template, in Jinja, that its texts had (default: its own)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the model directory."""
    from transformers.utils import logging

    from basereward.config.conversion import Component
    from basereward.interop.importing import import_judge, import_model

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    chosen = [flag for flag, value in _WAYS.items() if getattr(args, value)]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} exclude each other; give one")
    options = key_values(args.overrides, "--set")
    backbone = key_values(args.options, "--option")
    if args.plain:
        return _run_plain(args, bool(options or backbone))
    if args.judge is not None:
        if given := [flag for flag, value in _FOR_HEADS.items() if getattr(args, value)]:
            raise ConfigError(f"a judge has no head and no adapter; leave out {', '.join(given)}")
        check_model_output(Path(args.output), [args.source], overwrite=args.overwrite)
        options = {"template": args.judge, **options}
        import_judge(args.source, args.output, paradigm=options, backbone=args.backbone, **backbone)
        print(f"{args.output}: a judge, asked by the template {args.judge!r}")
        return 0
    if options and args.critic is None:
        raise ConfigError(
            "--set is for judges and critics; give --judge or --critic TEMPLATE, or leave it out"
        )
    inputs = [args.source, *([args.base] if args.base else [])]
    check_model_output(Path(args.output), inputs, overwrite=args.overwrite)
    critic = None if args.critic is None else Component("critic", {"template": args.critic, **options})
    template = None if args.chat_template is None else _text_of(args.chat_template)
    _, layout = import_model(
        args.source,
        args.output,
        base=args.base,
        backbone=args.backbone,
        read_bin=args.read_bin,
        template=template,
        paradigm=critic,
        **backbone,
    )
    print(f"{args.output}: with the head of {layout.title}")
    return 0


def _run_plain(args: argparse.Namespace, has_options: bool) -> int:
    from basereward.interop.original_layouts import rewrite_checkpoint

    given = [flag for flag, value in {**_FOR_HEADS, "--backbone": "backbone"}.items() if getattr(args, value)]
    if given or has_options:
        raise ConfigError(
            "--plain writes a model as it is; leave out "
            + ", ".join([*given, *["--set, --option"] * has_options])
        )
    check_model_output(Path(args.output), [args.source], overwrite=False)
    rewrite_checkpoint(args.source, args.output)
    print(f"{args.output}: in transformers' layout")
    return 0


def _text_of(path: Path) -> str:
    try:
        return read_bytes(path, MAX_TEMPLATE_BYTES).decode("utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--chat-template {path} can't be read: {error}") from error
