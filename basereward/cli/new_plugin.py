"""`basereward new-plugin`: a distribution of one's own, with a part of each kind that is asked for."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from basereward._version import __version__
from basereward.cli.command import Command
from basereward.errors import ConfigError
from basereward.hookspecs import KINDS, PROJECT

PARTS = (*KINDS, "command", "log")
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

ALWAYS = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "gitignore": ".gitignore",
    "test.yml": ".github/workflows/test.yml",
    "init.py": "@PACKAGE@/__init__.py",
    "run.toml": "run.toml",
    "rows.jsonl": "rows.jsonl",
    "held-out.jsonl": "held-out.jsonl",
    "test_conformance.py": "tests/test_conformance.py",
    "test_training.py": "tests/test_training.py",
}
"""Templates, and the files that are made of them."""

OF_PART = {
    "backbone": ("backbones.py",),
    "head": ("heads.py",),
    "loss": ("losses.py",),
    "ensembler": ("ensemblers.py",),
    "paradigm": ("paradigms.py",),
    "dataset": ("datasets.py", "votes.jsonl"),
    "benchmark": ("benchmarks.py", "duels.jsonl"),
    "writer": ("writers.py",),
    "command": ("commands.py",),
    "log": ("logger.py",),
}
"""Templates that only one part needs."""


COMMAND = Command(
    description="Write a distribution with a part of each kind. It installs, its tests pass, and a "
    "training uses it; then make the parts yours.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "name", metavar="NAME", help="the plugin's name; its directory is called basereward-NAME"
    )
    parser.add_argument(
        "--with",
        dest="parts",
        metavar="PART",
        choices=PARTS,
        action="append",
        help=f"a part to begin with: {', '.join(PARTS)}; may be repeated; all of them if not given",
    )
    parser.add_argument("--into", metavar="DIR", type=Path, default=Path(), help="where; here by default")


def run(args: argparse.Namespace) -> int:
    """Write the distribution, and print what to do with it."""
    directory = write(args.name, args.parts or PARTS, args.into)
    print(
        f"wrote {directory}; from here on:\n"
        f"  cd {directory}\n"
        "  pip install -e '.[test]'\n"
        "  pytest\n"
        "  basereward train run.toml"
    )
    return 0


def write(name: str, parts: Iterable[str], into: Path) -> Path:
    """Write a distribution and return its directory.

    Args:
        name: The plugin's, without "basereward-".
        parts: Some of `PARTS`.
        into: The directory above it.

    Raises:
        ConfigError: When the name is none, or the directory holds something.
    """
    if not NAME.fullmatch(name) or name.startswith(PROJECT):
        raise ConfigError(
            f"a plugin can't be called {name!r}; names are lower-case words joined by '-', such as "
            f"'focal-losses', and its distribution becomes {PROJECT}-NAME by itself"
        )
    directory = into / f"{PROJECT}-{name}"
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory} is there already; choose another name, or another place with --into")
    for place, text in files(name, parts).items():
        path = directory / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return directory


def files(name: str, parts: Iterable[str]) -> dict[str, str]:
    """Return the texts of a distribution's files by their paths."""
    from importlib import resources

    chosen = set(parts)
    package = f"{PROJECT}_{name.replace('-', '_')}"
    major, minor = __version__.split(".")[:2]
    values = {"NAME": name, "PACKAGE": package, "RANGE": f">={major}.{minor},<{major}.{int(minor) + 1}"}
    targets = dict(ALWAYS)
    for part in PARTS:
        for template in OF_PART[part] if part in chosen else ():
            targets[template] = f"@PACKAGE@/{template}" if template.endswith(".py") else template
    templates = resources.files(PROJECT) / "plugin_template"
    return {
        _filled(target, values): _filled(
            _chosen((templates / f"{template}.in").read_text(encoding="utf-8"), chosen), values
        )
        for template, target in targets.items()
    }


def _chosen(text: str, parts: set[str]) -> str:
    """Return a template without the blocks `@if PART ...` to `@end` that are for none of the parts."""
    lines = []
    is_in = True
    for line in text.splitlines(keepends=True):
        directive, *named = line.split() or [""]
        if directive in ("@if", "@if-not", "@end"):
            is_in = directive == "@end" or bool(parts & set(named)) == (directive == "@if")
        elif is_in:
            lines.append(line)
    return "".join(lines)


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
