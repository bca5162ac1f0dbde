"""The picture sheet: what the model orders most wrongly, with pictures, responses and rewards."""

from __future__ import annotations

import base64
import html
import importlib.util
import io
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

NUM_CARDS, NUM_COLUMNS, MAX_LINES = 12, 4, 4
CARD_WIDTH, CARD_PICTURE, MAX_CARD_HEIGHT, GAP = 260, 160, 600, 12  # pixels
INK, GREEN, RED, GREY = "#222222", "#1b7f4b", "#c8553d", "#777777"

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


def save_picture(wrong: Sequence[Wrong], path: Path) -> None:
    """Write a contact sheet as PNG, for where no browser is: first pictures and worst pairs."""
    import PIL.Image
    import PIL.ImageDraw

    cards = [_card(item) for item in wrong[:NUM_CARDS]]
    rows = [cards[start : start + NUM_COLUMNS] for start in range(0, len(cards), NUM_COLUMNS)]
    heights = [max(card.height for card in row) for row in rows]
    width = max(map(len, rows), default=1) * (CARD_WIDTH + GAP) + GAP
    canvas = PIL.Image.new("RGB", (width, sum(heights) + GAP * (len(rows) + 1) if rows else 60), "white")
    if not rows:
        PIL.ImageDraw.Draw(canvas).text((GAP, GAP), "No pair is ordered wrongly.", fill=INK, font=_font(14))
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, card in enumerate(row):
            canvas.paste(card, (GAP + column * (CARD_WIDTH + GAP), top))
        top += height + GAP
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


def _card(item: Wrong) -> PIL.Image.Image:
    """Draw a comparison: its picture, its prompt, and the pair that is most wrong."""
    import PIL.Image
    import PIL.ImageDraw

    comparison, result = item.comparison, item.result
    card = PIL.Image.new("RGB", (CARD_WIDTH, MAX_CARD_HEIGHT), "white")
    draw = PIL.ImageDraw.Draw(card)
    at = 8
    for image in comparison.images[:1]:
        picture = _thumbnail(image, CARD_PICTURE)
        if not isinstance(picture, DataError):
            card.paste(
                picture, ((CARD_WIDTH - picture.width) // 2, at + (CARD_PICTURE - picture.height) // 2)
            )
            at += CARD_PICTURE + 6
    pairs = [pair for pair in comparison.pairs() if not pair.tie]
    pair = min(pairs, key=lambda pair: result.rewards[pair.chosen] - result.rewards[pair.rejected])
    texts = (
        (_prompt(comparison), INK, 13),
        (f"better {result.rewards[pair.chosen]:+.2f}: {comparison.responses[pair.chosen]}", GREEN, 13),
        (f"worse {result.rewards[pair.rejected]:+.2f}: {comparison.responses[pair.rejected]}", RED, 13),
        (result.id, GREY, 10),
    )
    for text, colour, size in texts:
        font = _font(size)
        for line in _wrapped(text, font, CARD_WIDTH - 16):
            draw.text((8, at), line, fill=colour, font=font)
            at += size + 4
        at += 4
    card = card.crop((0, 0, CARD_WIDTH, min(at + 4, MAX_CARD_HEIGHT)))
    PIL.ImageDraw.Draw(card).rectangle((0, 0, card.width - 1, card.height - 1), outline="#cccccc")
    return card


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    """Return up to four lines no wider than `width` pixels; a language without spaces is broken anywhere."""
    lines = [""]
    for word in " ".join(text[:MAX_CHARACTERS].split()).split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
        if len(lines) > MAX_LINES:
            break
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], lines[MAX_LINES - 1][:-2] + " …"]
    return lines


def _font(size: int) -> Any:
    import PIL.ImageFont

    # Matplotlib brings a font with far more alphabets than Pillow's own.
    found = importlib.util.find_spec("matplotlib")
    for place in found.submodule_search_locations or () if found else ():
        path = Path(place) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return PIL.ImageFont.truetype(str(path), size)
    return PIL.ImageFont.load_default(size)
