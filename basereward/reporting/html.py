"""HTML pages from templates: text is escaped unless a template says otherwise, images are inlined."""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from basereward.storage.atomic import write_text

if TYPE_CHECKING:
    from pathlib import Path

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


def save_page(path: Path, template: str, **context: Any) -> None:
    """Write a page that needs no other file."""
    page = environment().get_template(template).render(context)
    # A lone surrogate, which JSON may hold, is no UTF-8.
    write_text(path, page, errors="backslashreplace")


def shortened(text: str) -> str:
    """Return a text of at most `MAX_CHARACTERS` characters, or its beginning."""
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " …"


def data_uri(content: bytes, media_type: str) -> str:
    """Return a file's content as a URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
