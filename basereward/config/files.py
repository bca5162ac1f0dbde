"""Run files: read from TOML and written to it, with every mistake named by file, table and key."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basereward.config.conversion import ValidationError, from_table
from basereward.config.overrides import deep_merge, set_value
from basereward.config.recipes import PREFIX, located
from basereward.config.run import RunConfig
from basereward.config.toml import dumps
from basereward.errors import ConfigError
from basereward.storage.outputs import real_path
from basereward.storage.reading import read_bytes

MAX_BYTES = 16 * 2**20
"""Bytes that a TOML file may have."""


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file.

    Args:
        path: The TOML file, or `recipe:NAME`.
        overrides: Settings `KEY=VALUE` that replace the file's, such as `train.lr=1e-5` or
            `data.train.0.path=a.jsonl`. A value that is not TOML is a string.

    Raises:
        ConfigError: Naming file, table and key, or the override.
    """
    table = run_table(path)
    places = {}
    for override in overrides:
        places[set_value(table, override)] = f"--set {override}"
    try:
        run: RunConfig = from_table(RunConfig, table)
    except ValidationError as error:
        place = next((text for keys, text in places.items() if error.path[: len(keys)] == keys), path)
        raise ConfigError(f"{place}: {error}") from error
    return run


def run_table(path: str | Path, *, changed_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the tables of a run file, merged into those of the file that its key `base` names, if any.

    A component with another name replaces the base's with all its options; a list replaces the base's list.

    Args:
        path: The TOML file, or `recipe:NAME`; its `base` is a path from there, or a recipe too.
        changed_by: The files that it is the base of.

    Raises:
        ConfigError: When a file can't be read, or is its own base.
    """
    path = located(path)
    table = read_toml(path)
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base must be the path of a run file, not {base!r}")
    changed_by += (real_path(path),)
    of_base = located(base) if base.startswith(PREFIX) else path.parent / base
    if (target := real_path(of_base)) in changed_by:
        cycle = " -> ".join(file.name for file in (*changed_by[changed_by.index(target) :], target))
        raise ConfigError(f"{path}: base = {base!r} makes a cycle: {cycle}")
    return deep_merge(run_table(of_base, changed_by=changed_by), table)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return the tables of a TOML file, or of a YAML file whose name ends in `.yaml` or `.yml`.

    Raises:
        ConfigError: When it can't be read, or is not TOML or YAML.
    """
    kind = "YAML" if Path(path).suffix in (".yaml", ".yml") else "TOML"
    try:
        text = read_bytes(Path(path), MAX_BYTES).decode("utf-8")
        if kind == "TOML":
            return tomllib.loads(text)
        from basereward.config.yaml import loads  # whose package takes 10 ms

        return loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is not {kind}: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: is nested too deeply") from error


def to_toml(run: RunConfig) -> str:
    """Return a run as TOML that `load_run` reads back as the same run, defaults included."""
    return dumps(run)
