"""The directory of an ensemble: what its members are called, where they lie, and how they get there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from basereward.errors import ConfigError, ModelError
from basereward.scoring.judge_settings import ADDRESS, is_judge
from basereward.scoring.member_scales import MemberStatistics
from basereward.scoring.writer_judge import WriterJudge
from basereward.storage import model_directory
from basereward.storage.atomic import file_digest
from basereward.storage.outputs import real_path

FOLDER = "members"
"""The directory within an ensemble's that has its members'."""

JUDGE_FILE = "judge.toml"
"""The only file of a member that asks a writer."""

Source: TypeAlias = "str | Path"
"""Where a member comes from: the directory of a model, a judge's file, or the address of its server."""


@dataclass(frozen=True)
class SavedMember:
    """A member as an ensemble's directory has it.

    Args:
        source: Its directory, or its judge's file.
        measured: What it is like, where that is known.
        template: The digest of a judge's template; empty for a model, whose directory has its own.
    """

    source: Path
    measured: MemberStatistics | None
    template: str = ""


def named_sources(sources: Iterable[Source] | Mapping[str, Source]) -> dict[str, Source]:
    """Return the members' sources by names; those that have none are called by what tells them apart.

    `runs/a/model` and `runs/b/model` are a and b, `judge.toml` is judge.

    Raises:
        ConfigError: When there is none, one is there twice, or a name can't be a directory's.
    """
    if isinstance(sources, Mapping):
        named = dict(sources)
        for name in named:
            if not _is_name(name):
                raise ConfigError(f"a member's name is that of a directory, not {name!r}")
    else:
        given = list(sources)
        parts = [_parts(source) for source in given]
        if len(set(parts)) < len(parts):
            twice = next(
                str(source if isinstance(source, str) and ADDRESS.fullmatch(source) else Path(source))
                for source, part in zip(given, parts, strict=True)
                if parts.count(part) > 1
            )
            raise ConfigError(f"{twice} is a member twice; once is enough")
        while len(parts) > 1 and len({part[-1] for part in parts}) == 1:
            parts = [part[:-1] for part in parts]
        depth = 1
        while len({part[-depth:] for part in parts}) < len(parts):
            depth += 1
        named = {"-".join(part[-depth:]): source for part, source in zip(parts, given, strict=True)}
    if not named:
        raise ConfigError("an ensemble needs at least one member; give model directories")
    return named


def _parts(source: Source) -> tuple[str, ...]:
    """Return the parts of a member's name, the last one the first to tell it by."""
    if match := ADDRESS.fullmatch(str(source)):
        return (f"{match[1]}-{urlsplit(match[2]).netloc.replace(':', '-')}",)
    path = real_path(Path(source))
    return (path.with_suffix("") if is_judge(source) else path).parts


def _is_name(name: str) -> bool:
    """Tell whether a member can be called so: its directory must lie in that of the ensemble."""
    return bool(name) and not name.startswith(".") and not set(name) & set("/\\")


def member_facts(
    name: str, measured: MemberStatistics | None, judge: WriterJudge | None = None
) -> dict[str, Any]:
    """Return what an ensemble's directory says of a member."""
    template = {} if judge is None else {"template_digest": judge.template.digest}
    return {"name": name, "measured": None if measured is None else asdict(measured), **template}


def saved_members(directory: Path, config: Mapping[str, Any]) -> dict[str, SavedMember]:
    """Return the members by name, as an ensemble's directory has them.

    Raises:
        ModelError: When it has them in another form.
    """
    try:
        entries = {entry["name"]: entry for entry in config["members"]}
        if not entries or len(entries) < len(config["members"]) or not all(map(_is_name, entries)):
            raise ValueError([entry["name"] for entry in config["members"]])
        members = {}
        for name, entry in entries.items():
            place = directory / FOLDER / name
            template = entry.get("template_digest", "")
            measured = None if entry["measured"] is None else MemberStatistics(**entry["measured"])
            members[name] = SavedMember(place / JUDGE_FILE if template else place, measured, template)
        return members
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        path = directory / model_directory.CONFIG_FILE
        raise ModelError(f"{path} is damaged: members: {error!r}") from error


def place_judge(judge: WriterJudge, target: Path) -> None:
    """Write the file of a judge into its directory in an ensemble."""
    from basereward.config.toml import dumps

    target.mkdir(parents=True)
    (target / JUDGE_FILE).write_text(dumps(judge.settings), encoding="utf-8")


def place_model(source: Path, target: Path, placed: dict[str, Path]) -> None:
    """Put a model's files into its directory in an ensemble.

    Args:
        source: The model's own directory.
        target: Its directory in the ensemble.
        placed: A file of each SHA-256 that the ensemble has already.

    Raises:
        ModelError: When the model's own directory isn't any more what it was.
    """
    files = model_directory.read(source, verify=True)["files"]
    config = model_directory.CONFIG_FILE
    for name, digest in {**files, config: file_digest(source / config)}.items():
        origin = placed.setdefault(digest, source / name)
        there = target / name
        there.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(origin, there)
        except OSError:
            shutil.copyfile(origin, there)
