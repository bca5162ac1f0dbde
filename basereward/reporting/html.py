"""HTML pages from templates: text is escaped unless a template says otherwise, images are inlined."""

from __future__ import annotations

import base64
import os
import shlex
import sys
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basereward._version import __version__
from basereward.storage.atomic import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Environment

GENERATOR = b'<meta name="generator" content="BaseReward">'
"""Stands in every page, by which it is known."""

MAX_CHARACTERS = 2000
"""Characters of a text from the data that a page shows."""


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the environment of `reporting/templates`; a name that a template is not given is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("basereward.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shortened"] = shortened
    environment.filters["png"] = lambda path: data_uri(path.read_bytes(), "image/png")
    return environment


@dataclass(frozen=True)
class Header:
    """The top of a page.

    Attributes:
        facts: Of what the page reports, by name, such as model, data and device.
        headline: Its main number.
        caption: The meaning of that number.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    headline: str = ""
    caption: str = ""

    def with_origin(self) -> Header:
        """Return it with the date, the version, and the command that is running."""
        origin = {"date": _now(), "version": f"BaseReward {__version__}"}
        command = command_line()
        return replace(self, facts={**self.facts, **origin, **({"command": command} if command else {})})


def save_page(path: Path, template: str, header: Header, **context: Any) -> None:
    """Write a page that needs no other file.

    Args:
        path: The file.
        template: The template's name.
        header: The top of the page.
        context: The values that the template reads.
    """
    page = environment().get_template(template).render(context, header=header.with_origin())
    # A lone surrogate, which JSON may hold, is no UTF-8.
    write_text(path, page, errors="backslashreplace")


def command_line() -> str:
    """Return the command of ours that this process is running; empty where it is somebody else's program."""
    program, *arguments = sys.argv or [""]
    name = Path(program).name
    if name == "__main__.py":
        name = Path(program).parent.name
    return f"basereward {shlex.join(arguments)}" if name == "basereward" else ""


def _now() -> str:
    """Return the time, or that of `SOURCE_DATE_EPOCH`, by which builds are made again with the same bytes."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.fromtimestamp(int(given), UTC) if given.isdecimal() else datetime.now(UTC)
    return now.strftime("%Y-%m-%d %H:%M UTC")


def shortened(text: str) -> str:
    """Return a text of at most `MAX_CHARACTERS` characters, or its beginning."""
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " …"


def data_uri(content: bytes, media_type: str) -> str:
    """Return a file's content as a URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
