"""A comparison as a piece of HTML that needs no other file: its images are inlined as small JPEGs."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from basereward.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import PIL.Image

    from basereward.comparison import Comparison
    from basereward.media.image import Image

THUMBNAIL = 240  # pixels of the longer side
MAX_IMAGES = 4
MAX_CHARACTERS = 2000

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 2rem auto; }
body { max-width: 70rem; padding: 0 1rem; }
article { display: grid; grid-template-columns: 260px 1fr; gap: 1.2rem; padding: 1.2rem 0; }
article { border-top: 1px solid #ddd; }
article.text { grid-template-columns: 1fr; }
img { max-width: 240px; max-height: 240px; display: block; margin-bottom: .4rem; border: 1px solid #eee; }
.prompt { white-space: pre-wrap; margin: 0 0 .6rem; } .place { color: #777; font-size: 12px; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .25rem .6rem .25rem 0; vertical-align: top; }
td.number { width: 4rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.response { white-space: pre-wrap; }
tr.best td { background: #e8f3ec; } tr.preferred td { background: #fbe9e5; }
.missing { color: #c8553d; font-size: 13px; }
"""


class Line(NamedTuple):
    """A response in a card: its numbers, its text, and how the line is coloured: "best", "preferred", ""."""

    numbers: tuple[str, ...]
    response: str
    look: str = ""


def card(comparison: Comparison, titles: Sequence[str], lines: Sequence[Line], footer: str) -> str:
    """Return an article with a comparison's images, its prompt, and a table of its responses.

    Args:
        comparison: The comparison.
        titles: Of the columns of numbers.
        lines: The responses as they are to stand there.
        footer: A line below.
    """
    images = "".join(_inline(image) for image in comparison.images[:MAX_IMAGES])
    if len(comparison.images) > MAX_IMAGES:
        images += f'<p class="place">and {len(comparison.images) - MAX_IMAGES} more</p>'
    head = "".join(f"<th>{escaped(title)}</th>" for title in (*titles, "response"))
    rows = "".join(
        f'<tr class="{line.look}">'
        + "".join(f'<td class="number">{escaped(number)}</td>' for number in line.numbers)
        + f'<td class="response">{escaped(line.response)}</td></tr>'
        for line in lines
    )
    column = f"<div>{images}</div>" if images else ""
    return (
        f"<article{'' if images else ' class=text'}>{column}<div>"
        f'<p class="prompt">{escaped(prompt_text(comparison))}</p>'
        f"<table><tr>{head}</tr>{rows}</table>"
        f'<p class="place">{escaped(footer)}</p></div></article>'
    )


def prompt_text(comparison: Comparison) -> str:
    """Return the texts of a prompt, with roles where there are several turns."""
    turns = [message for message in comparison.prompt if message.text.strip()]
    if len(turns) == 1:
        return turns[0].text
    return "\n".join(f"{message.role}: {message.text}" for message in turns)


def escaped(text: str) -> str:
    """Return a text for HTML, cut short."""
    cut = text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " …"
    return html.escape(cut)


def thumbnail(image: Image, size: int) -> PIL.Image.Image | DataError:
    """Return an image whose longer side is `size` pixels, or why it can't be opened."""
    try:
        small = image.open()
    except DataError as error:
        return error
    small = small.copy()
    small.thumbnail((size, size))
    return small


def _inline(image: Image) -> str:
    small = thumbnail(image, THUMBNAIL)
    if isinstance(small, DataError):
        return f'<p class="missing">{escaped(small.reason)}</p>'
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{html.escape(Path(image.name).name)}" src="data:image/jpeg;base64,{encoded}">'
