"""The error gallery: the most wrongly ordered comparisons with images, responses and rewards."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basereward.errors import DataError
from basereward.reporting.comparison_card import Card, card_of, prompt_text, thumbnail
from basereward.reporting.html import MAX_CHARACTERS, Header, save_page
from basereward.reporting.tables import Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import PIL.Image

    from basereward.evaluation.results import Wrong

NUM_CARDS, NUM_COLUMNS, MAX_LINES = 12, 4, 4
CARD_WIDTH, CARD_IMAGE, MAX_CARD_HEIGHT, GAP = 260, 160, 600, 12  # pixels
INK, GREEN, RED, GREY = "#222222", "#1b7f4b", "#c8553d", "#777777"


MARKS = "Worst first. ✓ (green): best by the data. ✗ (red): the highest reward."


def save_html(wrong: Sequence[Wrong], path: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write the gallery as a page that needs no other file.

    Args:
        wrong: The most wrongly ordered comparisons, worst first.
        path: The page.
        facts: Of the evaluation, for the page's header.
    """
    save_page(path, "error_gallery.html", Header(facts or {}), cards=page_cards(wrong), marks=MARKS)


def page_cards(wrong: Sequence[Wrong]) -> list[Card]:
    """Return the cards of a page."""
    return [_page_card(item) for item in wrong]


def save_image(wrong: Sequence[Wrong], path: Path) -> None:
    """Write the gallery as a PNG, for readers without a browser: first images and worst pairs."""
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
        for column, drawn in enumerate(row):
            canvas.paste(drawn, (GAP + column * (CARD_WIDTH + GAP), top))
        top += height + GAP
    canvas.save(path, optimize=True)


def _page_card(item: Wrong) -> Card:
    result = item.result
    rows = [
        Row.of(
            f"{place + 1}",
            f"{reward:+.3f}",
            response,
            style=("best " * (place == 0) + "preferred" * (reward == max(result.rewards))).strip(),
        )
        for place, reward, response in _by_rank(item)
    ]
    return card_of(item.comparison, ("true", "reward"), rows, f"{result.id} · margin {result.margin:+.3f}")


def _by_rank(item: Wrong) -> list[tuple[int, float, str]]:
    """Return place, reward and text of each response in the true order; places count from 0."""
    result = item.result
    places = {rank: place for place, rank in enumerate(sorted(set(result.ranks)))}
    rows = zip(
        (places[rank] for rank in result.ranks), result.rewards, item.comparison.responses, strict=True
    )
    return sorted(rows, key=lambda row: (row[0], -row[1]))


def _card(item: Wrong) -> PIL.Image.Image:
    """Draw a comparison: a thumbnail, its prompt, and its most wrongly ordered pair."""
    import PIL.Image
    import PIL.ImageDraw

    comparison, result = item.comparison, item.result
    drawn = PIL.Image.new("RGB", (CARD_WIDTH, MAX_CARD_HEIGHT), "white")
    draw = PIL.ImageDraw.Draw(drawn)
    at = 8
    for image in comparison.images[:1]:
        small = thumbnail(image, CARD_IMAGE)
        if not isinstance(small, DataError):
            drawn.paste(small, ((CARD_WIDTH - small.width) // 2, at + (CARD_IMAGE - small.height) // 2))
            at += CARD_IMAGE + 6
    pairs = [pair for pair in comparison.pairs() if not pair.tie]
    pair = min(pairs, key=lambda pair: result.rewards[pair.chosen] - result.rewards[pair.rejected])
    texts = (
        (prompt_text(comparison), INK, 13),
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
    drawn = drawn.crop((0, 0, CARD_WIDTH, min(at + 4, MAX_CARD_HEIGHT)))
    PIL.ImageDraw.Draw(drawn).rectangle((0, 0, drawn.width - 1, drawn.height - 1), outline="#cccccc")
    return drawn


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
    spec = importlib.util.find_spec("matplotlib")
    for directory in spec.submodule_search_locations or () if spec else ():
        path = Path(directory) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return PIL.ImageFont.truetype(str(path), size)
    return PIL.ImageFont.load_default(size)
