"""The texts of a command, and the options that several commands have."""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import dataclass
from typing import Any

WIDTH = 80
"""Characters of a line of a help."""


@dataclass(frozen=True)
class Command:
    """The texts of a command.

    Attributes:
        description: The beginning of its own help, which is wrapped.
        examples: Lines at the end of its own help; long ones are continued.
    """

    description: str
    examples: str = ""

    def parser_options(self) -> dict[str, Any]:
        """Return the texts as arguments of `add_parser`."""
        options: dict[str, Any] = {
            "description": textwrap.fill(self.description, WIDTH),
            "formatter_class": argparse.RawDescriptionHelpFormatter,
        }
        if self.examples:
            lines = [part for line in self.examples.splitlines() for part in _continued(line)]
            options["epilog"] = "\n".join(["examples:", *lines, ""])
        return options


def _continued(line: str) -> list[str]:
    """Return an example as lines of a shell that fit the width, and the remark at its end before them."""
    if len(line) <= WIDTH:
        return [line]
    command, _, remark = line.strip().partition("   ")
    parts = textwrap.wrap(
        command,
        WIDTH - 2,
        initial_indent="  ",
        subsequent_indent="      ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    remarks = [f"  # {remark.strip().removeprefix('# ')}"] if remark else []
    return remarks + [f"{part} \\" for part in parts[:-1]] + parts[-1:]


def add_overrides(parser: argparse.ArgumentParser, doc: str) -> None:
    """Add `--set`, whose values are in `overrides`; `doc` says what is set, with an example."""
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        dest="overrides",
        action="append",
        default=[],
        help=f"{doc}; may be repeated",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device` and `--precision`, which `load_model` reads."""
    parser.add_argument(
        "--device",
        metavar="NAME",
        default="auto",
        help="auto, cpu, cuda, cuda:1, ... (default: auto, the GPU where there is one)",
    )
    parser.add_argument(
        "--precision",
        metavar="NAME",
        choices=("auto", "fp32", "bf16"),
        help="of matrix products: fp32, bf16, or auto for bf16 where the device multiplies it fast (default: "
        "auto on a GPU, fp32 on a CPU)",
    )
