"""The picture sheet: what the model orders most wrongly, with pictures, responses and rewards."""

from __future__ import annotations

import base64
import html
import importlib.util
import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basereward.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import PIL.Image

    from basereward.comparison import Comparison
    from basereward.evaluation.evaluation import Wrong
    from basereward.media import Image

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
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; } td.response { white-space: pre-wrap; }
tr.best td { background: #e8f3ec; } tr.preferred td { background: #fbe9e5; }
.missing { color: #c8553d; font-size: 13px; }
"""


def save_html(wrong: Sequence[Wrong], path: Path) -> None:
    """Write one HTML page that needs no other file: the pictures are inlined as small JPEGs."""
    items = "\n".join(_article(item) for item in wrong) or "<p>No pair is ordered wrongly.</p>"
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Most wrong</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>Most wrong</h1>\n"
        "<p>Worst first. Green is best by the data, red has the highest reward.</p>\n"
        f"{items}\n</body></html>\n"
    )
    path.write_text(page, encoding="utf-8")


def save_picture(wrong: Sequence[Wrong], path: Path, *, num_columns: int = 3) -> None:
    """Write a contact sheet as PNG, for where no browser is: first picture, prompt, and the worst pair."""
    import PIL.Image
    import PIL.ImageDraw

    width, height, gap = 340, 400, 16
    num_columns = max(1, min(num_columns, len(wrong)))
    num_rows = max(1, -(-len(wrong) // num_columns))
    size = (num_columns * (width + gap) + gap, num_rows * (height + gap) + gap)
    canvas = PIL.Image.new("RGB", size, "white")
    draw = PIL.ImageDraw.Draw(canvas)
    if not wrong:
        draw.text((gap, gap), "No pair is ordered wrongly.", fill="#222222", font=_font(14))
    for number, item in enumerate(wrong):
        row, column = divmod(number, num_columns)
        _draw_card(
            canvas, draw, item, gap + column * (width + gap), gap + row * (height + gap), width, height
        )
    canvas.save(path, optimize=True)


def _article(item: Wrong) -> str:
    comparison, result = item.comparison, item.result
    pictures = "".join(_inline(image) for image in comparison.images[:MAX_IMAGES])
    if len(comparison.images) > MAX_IMAGES:
        pictures += f'<p class="place">and {len(comparison.images) - MAX_IMAGES} more</p>'
    rows = "".join(
        f'<tr class="{"best " * (rank == min(result.ranks))}{"preferred" * (reward == max(result.rewards))}">'
        f'<td class="number">{rank + 1:g}</td><td class="number">{reward:+.3f}</td>'
        f'<td class="response">{_escaped(response)}</td></tr>'
        for rank, reward, response in _by_rank(item)
    )
    column = f"<div>{pictures}</div>" if pictures else ""
    return (
        f"<article{'' if pictures else ' class=text'}>{column}<div>"
        f'<p class="prompt">{_escaped(_prompt(comparison))}</p>'
        f"<table><tr><th>true</th><th>reward</th><th>response</th></tr>{rows}</table>"
        f'<p class="place">{_escaped(result.id)} · margin {result.margin:+.3f}</p></div></article>'
    )


def _by_rank(item: Wrong) -> list[tuple[float, float, str]]:
    """Return place, reward and text of each response in the true order; places count from 0."""
    result = item.result
    places = {rank: float(place) for place, rank in enumerate(sorted(set(result.ranks)))}
    rows = zip(
        (places[rank] for rank in result.ranks), result.rewards, item.comparison.responses, strict=True
    )
    return sorted(rows, key=lambda row: (row[0], -row[1]))


def _prompt(comparison: Comparison) -> str:
    turns = [message for message in comparison.prompt if message.text.strip()]
    if len(turns) == 1:
        return turns[0].text
    return "\n".join(f"{message.role}: {message.text}" for message in turns)


def _escaped(text: str) -> str:
    cut = text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " …"
    return html.escape(cut)


def _thumbnail(image: Image, size: int) -> PIL.Image.Image | DataError:
    try:
        picture = image.open()
    except DataError as error:
        return error
    picture = picture.copy()
    picture.thumbnail((size, size))
    return picture


def _inline(image: Image) -> str:
    picture = _thumbnail(image, THUMBNAIL)
    if isinstance(picture, DataError):
        return f'<p class="missing">{_escaped(picture.reason)}</p>'
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{html.escape(Path(image.name).name)}" src="data:image/jpeg;base64,{encoded}">'


def _draw_card(canvas: Any, draw: Any, item: Wrong, left: int, top: int, width: int, height: int) -> None:
    draw.rectangle((left, top, left + width, top + height), outline="#cccccc")
    at = top + 10
    for image in item.comparison.images[:1]:
        picture = _thumbnail(image, 200)
        if isinstance(picture, DataError):
            continue
        canvas.paste(picture, (left + (width - picture.width) // 2, at))
        at += picture.height + 8
    rows = _by_rank(item)
    best, preferred = rows[0], max(rows, key=lambda row: row[1])
    texts = (
        (_prompt(item.comparison), "#222222", 14),
        (f"best:      {best[1]:+.2f}  {best[2]}", "#1b7f4b", 14),
        (f"preferred: {preferred[1]:+.2f}  {preferred[2]}", "#c8553d", 14),
        (f"{item.result.id} · margin {item.result.margin:+.2f}", "#777777", 11),
    )
    for text, colour, size in texts:
        font = _font(size)
        characters = int((width - 20) / (size * 0.56))
        line_height = size + 5
        for line in textwrap.wrap(text, characters, max_lines=4, placeholder=" …"):
            if at + line_height > top + height:
                return
            draw.text((left + 10, at), line, fill=colour, font=font)
            at += line_height
        at += 4


def _font(size: int) -> Any:
    import PIL.ImageFont

    # Matplotlib brings a font with far more alphabets than Pillow's own.
    found = importlib.util.find_spec("matplotlib")
    for place in found.submodule_search_locations or () if found else ():
        path = Path(place) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return PIL.ImageFont.truetype(str(path), size)
    return PIL.ImageFont.load_default(size)
