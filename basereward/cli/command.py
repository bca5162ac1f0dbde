"""The texts of a command, and the options that several commands have."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """The texts of a command.

    Attributes:
        help: Its line in the list of commands.
        description: The beginning of its own help.
        examples: Lines at the end of its own help; where there are any, no text is wrapped.
    """

    help: str
    description: str
    examples: str = ""

    def parser_options(self) -> dict[str, Any]:
        """Return the texts as arguments of `add_parser`."""
        options: dict[str, Any] = {"help": self.help, "description": self.description}
        if self.examples:
            options |= {
                "epilog": f"examples:\n{self.examples}",
                "formatter_class": argparse.RawDescriptionHelpFormatter,
            }
        return options


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
