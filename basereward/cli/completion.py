"""`basereward completion`: a script by which a shell completes our commands, their options and files."""

from __future__ import annotations

import argparse
import importlib
import re
from typing import TYPE_CHECKING

from basereward.cli.command import Command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COMMAND = Command(
    description="Print a script for the shell, which completes commands, options and files.",
    examples="""\
  source <(basereward completion bash)         # in ~/.bashrc
  source <(basereward completion zsh)          # in ~/.zshrc, after compinit
""",
)

SCRIPT = """\
_basereward() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words="{commands}"
    if [ "$COMP_CWORD" -gt 1 ]; then
        case "${{COMP_WORDS[1]}}" in
{cases}
            *) words="--help" ;;
        esac
        case "$word" in
            -*) ;;
            *) [ "${{COMP_WORDS[1]}}" = data ] && [ "$COMP_CWORD" -eq 2 ] || {{
                COMPREPLY=($(compgen -f -- "$word"))
                return
            }} ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o filenames -F _basereward basereward
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("shell", choices=("bash", "zsh"), help="zsh takes the script of bash")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from basereward.cli import COMMANDS

    if args.shell == "zsh":
        print("autoload -U +X bashcompinit && bashcompinit")
    print(script({command: words_of(command) for command in COMMANDS}), end="")
    return 0


def words_of(command: str) -> list[str]:
    """Return the options of a command, and the commands that it has itself, as its help names them."""
    parser = argparse.ArgumentParser(prog=command)
    importlib.import_module(f"basereward.cli.{command.replace('-', '_')}").add_arguments(parser)
    text = parser.format_help()
    options = re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)
    subcommands = re.findall(r"^ {4}([a-z][a-z-]+)(?: |$)", text.partition("\ncommands:\n")[2], re.MULTILINE)
    return list(dict.fromkeys([*subcommands, *options]))


def script(words: Mapping[str, Sequence[str]]) -> str:
    """Return the script of bash that completes the commands and their words."""
    cases = "\n".join(f'            {name}) words="{" ".join(each)}" ;;' for name, each in words.items())
    return SCRIPT.format(commands=" ".join(words), cases=cases)
