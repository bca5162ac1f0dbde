"""The run and study files that BaseReward brings, known by their names: `recipe:basereward-7b`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from basereward.config.conversion import did_you_mean
from basereward.errors import ConfigError

PREFIX: Final = "recipe:"

PACKAGE: Final = Path(__file__).parents[1]

STUDY: Final = re.compile(r"^\[axes\b|^axes\.", re.MULTILINE)
"""What a study file has, and no run file."""


def recipes_directory(package: Path = PACKAGE) -> Path:
    """Return the directory of the recipes: in the package that is installed, beside it in a checkout."""
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def recipe_files() -> dict[str, Path]:
    """Return the recipes' files by their names, such as `basereward-7b` and `backbones/internvl3-8b`."""
    directory = recipes_directory()
    return {
        path.relative_to(directory).with_suffix("").as_posix(): path
        for path in sorted(directory.rglob("*.toml"))
    }


def located(path: str | Path) -> Path:
    """Return the file of `recipe:NAME`, or the path itself.

    Raises:
        ConfigError: When there is no such recipe.
    """
    text = str(path)
    if not text.startswith(PREFIX):
        return Path(path)
    name, files = text.removeprefix(PREFIX), recipe_files()
    if name not in files:
        hint = did_you_mean(name, files) or "; `basereward recipes` lists them"
        raise ConfigError(f"{text}: there is no recipe {name!r}{hint}")
    return files[name]


def title_of(text: str) -> str:
    """Return the first sentence of a recipe's first comment, or the base that it changes."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#") or line == "#":
            break
        lines.append(line.removeprefix("#").strip())
    comment = " ".join(lines)
    sentence = re.match(r"(?:[^.:;]|[.](?!\s|$))+", comment)
    if sentence:
        return sentence[0]
    base = re.search(r'^base = "(?:.*/)?([\w.-]+?)(?:\.toml)?"', text, re.MULTILINE)
    model = re.search(r'^model = "([^"]+)"', text, re.MULTILINE)
    return f"{base[1] if base else ''} with {model[1]}" if model else f"changes {base[1] if base else ''}"
