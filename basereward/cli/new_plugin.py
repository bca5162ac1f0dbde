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
CHOICES = (*PARTS, "op")
"""A native op needs a compiler, so that it comes only where it is asked for."""

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
    "op": ("setup.py", "MANIFEST.in", "activated_sum.cpp", "ops.py", "op_heads.py", "test_op.py"),
}
"""Templates that only one part needs."""

PLACES = {
    "setup.py": "setup.py",
    "activated_sum.cpp": "csrc/activated_sum.cpp",
    "test_op.py": "tests/test_op.py",
}
"""Files of parts that lie neither in the package, as other Python files do, nor beside it."""

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
        choices=CHOICES,
        action="append",
        help=f"a part to begin with: {', '.join(PARTS)}; may be repeated; all of them if not given; or op, "
        "a native op in C++, with a head that calls it",
    )
    parser.add_argument("--into", metavar="DIR", type=Path, default=Path(), help="where; here by default")


def run(args: argparse.Namespace) -> int:
    """Write the distribution, and print what to do with it."""
    parts = args.parts or PARTS
    directory = write(args.name, parts, args.into)
    build = "--no-build-isolation " if "op" in parts else ""
    print(
        f"wrote {directory}; from here on:\n"
        f"  cd {directory}\n"
        f"  pip install {build}-e '.[test]'\n"
        "  pytest\n"
        "  basereward train run.toml"
    )
    return 0


def write(name: str, parts: Iterable[str], into: Path) -> Path:
    """Write a distribution and return its directory.

    Args:
        name: The plugin's, without "basereward-".
        parts: Some of `CHOICES`.
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
    for part in CHOICES:
        for template in OF_PART[part] if part in chosen else ():
            beside = f"@PACKAGE@/{template}" if template.endswith(".py") else template
            targets[template] = PLACES.get(template, beside)
    templates = resources.files(PROJECT) / "plugin_template"
    return {
        _filled(target, values): _filled(
            _chosen((templates / f"{template}.in").read_text(encoding="utf-8"), chosen), values
        )
        for template, target in targets.items()
    }


def _chosen(text: str, parts: set[str]) -> str:
    """Return a template without the blocks `@if PART ...` to `@end`, also in others, that are for no part."""
    lines = []
    blocks: list[bool] = []  # of those that a line is in, whether each is for one of the parts
    for line in text.splitlines(keepends=True):
        directive, *named = line.split() or [""]
        if directive == "@end":
            blocks.pop()
        elif directive in ("@if", "@if-not"):
            blocks.append(bool(parts & set(named)) == (directive == "@if"))
        elif all(blocks):
            lines.append(line)
    return "".join(lines)


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
