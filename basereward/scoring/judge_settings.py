"""The settings of a judge without weights: its TOML file, or the address of a server.

template = "verdict"

[writer]
name = "endpoint"
urls = ["http://127.0.0.1:8000/v1"]
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

from basereward.config.conversion import Component, ValidationError, from_table
from basereward.config.files import read_toml
from basereward.errors import ConfigError
from basereward.paradigms.verdicts import Aggregate, Reading

ADDRESS = re.compile(r"(judge|decisions|systemone)\+(https?://.+)")
"""The name of a judge at a server, with all settings as they are by default."""

APIS = {"judge": "chat", "decisions": "any-decisions", "systemone": "systemone"}
"""The API that the beginning of an address names."""


@dataclass(frozen=True)
class JudgeSettings:
    """A judge's file.

    Args:
        writer: The writer that answers, with its options.
        template: The judge template: of verdicts, reasoned verdicts or critiques.
        aggregate: How preferences become rewards, as of the paradigm `generative`.
        max_pairs: Pairs that are asked about in a comparison; None for all.
        num_votes: Answers to each question of reasoned verdicts.
        temperature: Of the answers, where there are several votes; one alone is always the likeliest.
        max_answer_tokens: The longest reasoned verdict or critique; longer ones are no verdict.
        reading: How texts are read, as `verdicts.read_verdict` takes it.
        max_rotations: Orders that a template of choices is asked in; None for one a response.
        reward_temperature: The number that rewards are divided by to be log-odds; None where none was fitted.
    """

    writer: Component
    template: str = "verdict"
    aggregate: Aggregate = "wins"
    max_pairs: int | None = None
    num_votes: int = 1
    temperature: float = 1.0
    max_answer_tokens: int = 1024
    reading: Reading = "form"
    max_rotations: int | None = None
    reward_temperature: float | None = None


def is_judge(name: str | Path) -> bool:
    """Tell whether a name is that of a judge's file or address, not of a directory."""
    return bool(ADDRESS.fullmatch(str(name))) or (Path(name).suffix == ".toml" and not Path(name).is_dir())


def judge_settings(source: str | Path) -> JudgeSettings:
    """Return the settings of a judge's file or address.

    Raises:
        ConfigError: When the file is wrong.
    """
    if match := ADDRESS.fullmatch(str(source)):
        return JudgeSettings(Component("endpoint", {"urls": (match[2],), "api": APIS[match[1]]}))
    table = read_toml(Path(source))
    try:
        settings: JudgeSettings = from_table(JudgeSettings, table)
    except ValidationError as error:
        names = ", ".join(field.name for field in fields(JudgeSettings))
        raise ConfigError(f"{source}: {error} (a judge's file has {names})") from error
    return settings
