"""OpenMoji images with their names: the chosen caption is the image's, the rejected are others'."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from basereward.comparison import Comparison
from basereward.data.dataset import Dataset
from basereward.errors import ConfigError
from basereward.media import Image
from basereward_mini import assets

if TYPE_CHECKING:
    import PIL.Image

PROMPT = "What is it?"
SIDE = 160
UNKNOWN = "unknown"
FULLY_QUALIFIED = 2
SKIN_TONES = range(0x1F3FB, 0x1F400)
SPLIT_SEED = 0
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.05


@dataclass(frozen=True)
class Drawing:
    """One image: the emoji, its name, its other names, and the group that Unicode puts it in."""

    emoji: str
    name: str
    other_names: tuple[str, ...]
    group: str


class OpenMojiCaptions(Dataset):
    """Comparisons of one image, its name, and the names of other images of the same split.

    No image and no name is in two splits. Every name is chosen once and rejected `num_responses - 1` times,
    so the text alone tells nothing: see `without_image`.

    Args:
        path: Not used; the images come from packages.
        split: `train`, `validation` (for choosing settings) or `test`.
        num_responses: Captions an image, the true one among them.
        wrong: Where wrong names come from: `random` images of the split, or the `same-group` of Unicode, as
            animals or vehicles, which is harder; groups of fewer than `num_responses` images are left out.
        without_image: Whether the image is left out: the control that must come out at one half.
        other_names: Whether the true and the wrong captions may be other names of their images.
        explained: Whether rows bring texts for critics and reasoned judges to learn, which say what is shown.
        seed: Of the draw of wrong names; `set_epoch` draws anew.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        split: Literal["train", "validation", "test"] = "train",
        num_responses: int = 8,
        wrong: Literal["random", "same-group"] = "random",
        without_image: bool = False,
        other_names: bool = False,
        explained: bool = False,
        seed: int = 0,
    ) -> None:
        if num_responses < 2:
            raise ConfigError(f"num_responses is {num_responses}; a comparison needs at least 2")
        self.drawings = split_of(split)
        self.split = split
        self.num_responses = num_responses
        self.wrong = wrong
        self.without_image = without_image
        self.other_names = other_names
        self.explained = explained
        self.seed = seed
        self.epoch = 0

    @property
    def num_rows(self) -> int:
        """The number of images."""
        return len(self.drawings)

    def set_epoch(self, epoch: int) -> None:
        """Draw other wrong names from now on."""
        self.epoch = epoch

    def read(self) -> Iterator[Comparison]:
        """Yield a comparison for each image that has enough others to draw names of."""
        chance = random.Random(f"{self.seed} {self.epoch} {self.split}")
        wrong = self._draw_wrong(chance)
        for drawing in self.drawings:
            if drawing.name not in wrong:
                continue
            chosen = [drawing, *wrong[drawing.name]]
            yield Comparison(
                PROMPT,
                [self._caption(one, chance) for one in chosen],
                images=() if self.without_image else (image(drawing.emoji),),
                ranks=[0, *[1] * (self.num_responses - 1)],
                id=drawing.name,
                source="openmoji",
                meta={"category": drawing.group, **(self._explanations(drawing) if self.explained else {})},
            )

    def _explanations(self, drawing: Drawing) -> dict[str, Any]:
        """Return a critique of each response, and a judgement of each pair of the true and a wrong one."""
        shown = f"It shows {drawing.name}."
        wrong = range(1, self.num_responses)
        orders = [(0, other) for other in wrong] + [(other, 0) for other in wrong]
        judgements = [
            {
                "first": first,
                "second": second,
                "text": f"<think>{shown}</think><answer>{1 if first == 0 else 2}</answer>",
            }
            for first, second in orders
        ]
        return {"critiques": [shown] * self.num_responses, "judgements": judgements}

    def _draw_wrong(self, chance: random.Random) -> dict[str, list[Drawing]]:
        """Return the drawings whose names are rejected for each name, each drawing equally often.

        The drawings stand in a circle in random order, and all look the same distances ahead.
        """
        circles: dict[str, list[Drawing]] = {}
        for drawing in self.drawings:
            circles.setdefault(drawing.group if self.wrong == "same-group" else "", []).append(drawing)
        wrong = {}
        for group, circle in circles.items():
            if len(circle) < self.num_responses or group == UNKNOWN:
                continue
            chance.shuffle(circle)
            distances = chance.sample(range(1, len(circle)), self.num_responses - 1)
            for place, drawing in enumerate(circle):
                wrong[drawing.name] = [circle[(place + ahead) % len(circle)] for ahead in distances]
        return wrong

    def _caption(self, drawing: Drawing, chance: random.Random) -> str:
        if not self.other_names or not drawing.other_names or chance.random() < 0.5:
            return drawing.name
        return chance.choice(drawing.other_names)


def split_of(split: str) -> list[Drawing]:
    """Return the drawings of a split; the same on every machine."""
    shuffled = list(drawings())
    random.Random(SPLIT_SEED).shuffle(shuffled)
    num_test = round(TEST_SHARE * len(shuffled))
    num_validation = round(VALIDATION_SHARE * len(shuffled))
    bounds = {
        "test": (0, num_test),
        "validation": (num_test, num_test + num_validation),
        "train": (num_test + num_validation, len(shuffled)),
    }
    parts = {name: shuffled[start:stop] for name, (start, stop) in bounds.items()}
    # Some emoji are drawn alike, such as flags; none that is judged may have been trained on by another name.
    seen: set[bytes] = set()
    for name in ("train", "validation", "test"):
        parts[name] = [drawing for drawing in parts[name] if _pixels(drawing.emoji) not in seen]
        seen |= {_pixels(drawing.emoji) for drawing in parts[name]}
        if name == split:
            break
    return parts[split]


@cache
def drawings() -> tuple[Drawing, ...]:
    """Return all emoji without skin tones that the font can draw, in the order of their names."""
    import emoji

    groups = _groups()
    found = []
    names: set[str] = set()
    for character, entry in emoji.EMOJI_DATA.items():
        if entry["status"] != FULLY_QUALIFIED or any(ord(part) in SKIN_TONES for part in character):
            continue
        if not _is_drawn(character):
            continue
        name = _words(entry["en"])
        others = {_words(alias) for alias in entry.get("alias", ())} - {name}
        names.add(name)
        found.append((character, name, others))
    # A name that is another image's, too, would make a true caption count as a wrong one.
    taken: dict[str, int] = {}
    for _, _, others in found:
        for other in others:
            taken[other] = taken.get(other, 0) + 1
    drawn = [
        Drawing(
            character,
            name,
            tuple(sorted(other for other in others if other not in names and taken[other] == 1)),
            groups.get(character.replace("\ufe0f", ""), UNKNOWN),
        )
        for character, name, others in found
    ]
    return tuple(sorted(drawn, key=lambda drawing: drawing.name))


@cache
def image(character: str) -> Image:
    """Draw one emoji as an encoded image, so that its digest doesn't depend on who asks."""
    import io

    buffer = io.BytesIO()
    _draw(character).save(buffer, "PNG", compress_level=1)
    return Image(buffer.getvalue())


@cache
def _pixels(character: str) -> bytes:
    """Return a digest of a drawing."""
    return hashlib.sha256(_draw(character).tobytes()).digest()


@cache
def _font() -> object:
    from PIL import ImageFont

    return ImageFont.truetype(str(assets.OPENMOJI.find()), size=round(SIDE * 0.8))


def _draw(character: str) -> PIL.Image.Image:
    from PIL import Image as Pillow
    from PIL import ImageDraw

    canvas = Pillow.new("RGB", (SIDE, SIDE), "white")
    place = (SIDE / 2, SIDE / 2)
    ImageDraw.Draw(canvas).text(place, character, font=_font(), embedded_color=True, anchor="mm")
    return canvas


def _is_drawn(character: str) -> bool:
    from PIL import ImageFont

    font = _font()
    assert isinstance(font, ImageFont.FreeTypeFont)
    left, _, right, _ = font.getbbox(character)
    # The font lacks a few of the newest; a sequence that it can't join comes out as several images in a
    # row.
    return right - left < 1.6 * SIDE and _draw(character).getcolors(maxcolors=1) is None


def _groups() -> dict[str, str]:
    rows: Sequence[dict[str, str]] = json.loads(assets.EMOJI_GROUPS.find().read_text(encoding="utf-8"))
    return {
        "".join(chr(int(code, 16)) for code in row["unified"].split("-")).replace("\ufe0f", ""): row[
            "category"
        ]
        for row in rows
    }


def _words(name: str) -> str:
    return name.strip(":").replace("_", " ")
