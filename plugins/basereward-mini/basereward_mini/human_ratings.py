"""Texts with the ratings of 15 to 99 people each: Hutto & Gilbert, ICWSM 2014, in the sdist of
vaderSentiment.

The ratings say how favourable a text is, from -4 to 4, not how good an answer it is. They are used because
they are real: people disagree, and how often a single one agrees with the others bounds what a model can
reach.
"""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

from basereward.comparison import Comparison
from basereward.data.dataset import Dataset
from basereward.errors import ConfigError, DataError
from basereward_mini import assets

PROMPT = "Say something favourable."
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
FILES = {
    "movies": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "news": "nytEditorialSnippets",
    "tweets": "tweets",
}
GAPS = (0.5, 1.5, 3.0)
SPLIT_SEED = 0
TEST_SHARE = 0.2


@dataclass(frozen=True)
class RatedText:
    """A text and what each of its raters gave it."""

    text: str
    ratings: tuple[int, ...]

    @property
    def mean(self) -> float:
        """The mean rating."""
        return sum(self.ratings) / len(self.ratings)


class HumanRatings(Dataset):
    """Comparisons of several texts, rated by the mean of their raters; the gap of two means is a pair's
    margin.

    Args:
        path: The sdist `vaderSentiment-3.3.2.tar.gz`; found in the assets' folder if not given.
        texts: Which of the four sets.
        split: `train` or `test`; no text is in both.
        num_responses: Texts of a comparison; each text is in one comparison.
        num_texts: Texts to use, None for all of the split.
        seed: Of the grouping; `set_epoch` groups anew.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        texts: Literal["movies", "products", "news", "tweets"] = "movies",
        split: Literal["train", "test"] = "train",
        num_responses: int = 8,
        num_texts: int | None = None,
        seed: int = 0,
    ) -> None:
        self.texts = split_of(find(path), texts, split)[:num_texts]
        self.kind = texts
        if not 2 <= num_responses <= len(self.texts):
            raise ConfigError(f"num_responses is {num_responses}; allowed: 2 to {len(self.texts)}")
        self.num_responses = num_responses
        self.seed = seed
        self.epoch = 0

    @property
    def num_rows(self) -> int:
        """The number of comparisons."""
        return len(self.texts) // self.num_responses

    def set_epoch(self, epoch: int) -> None:
        """Group the texts otherwise from now on."""
        self.epoch = epoch

    def read(self) -> Iterator[Comparison]:
        """Yield the comparisons; texts left over make none."""
        shuffled = list(self.texts)
        random.Random(f"{self.seed} {self.epoch}").shuffle(shuffled)
        starts = range(0, len(shuffled) + 1, self.num_responses)
        for number, (start, stop) in enumerate(pairwise(starts)):
            chosen = shuffled[start:stop]
            yield Comparison(
                PROMPT,
                [one.text for one in chosen],
                ratings=[one.mean for one in chosen],
                id=f"{self.kind}-{number}",
                source=f"human-ratings {self.kind}",
            )


def find(path: str | None = None) -> Path:
    """Return the sdist's path once its digest has been compared.

    Raises:
        DataError: When it is absent or another file.
    """
    found = Path(path) if path else assets.RATINGS_DIRECTORY / assets.RATINGS_NAME
    if not found.is_file():
        raise DataError(f"is not there; `make {found}` downloads it", file=str(found))
    digest = hashlib.sha256(found.read_bytes()).hexdigest()
    if digest != assets.RATINGS_SHA256:
        reason = f"has the SHA-256 {digest[:16]}..., not {assets.RATINGS_SHA256[:16]}..."
        raise DataError(reason, file=str(found))
    return found


@cache
def rated_texts(path: Path, kind: str) -> tuple[RatedText, ...]:
    """Read one set out of the sdist, each distinct text once, in the order of the file."""
    with tarfile.open(path) as outer:
        inner = outer.extractfile(INNER)
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as archive:
            lines = {}
            for suffix in ("GroundTruth", "anonDataRatings"):
                member = archive.extractfile(f"hutto_ICWSM_2014/{FILES[kind]}_{suffix}.txt")
                assert member is not None
                lines[suffix] = member.read().removeprefix(BOM_UTF8).decode("utf-8").split("\n")
    texts = dict(_cells(line, 2) for line in lines["GroundTruth"] if line.strip())
    found: dict[str, RatedText] = {}
    for line in lines["anonDataRatings"]:
        if line.strip():
            number, ratings = _cells(line, 3)
            text = texts[number].strip()
            if text:
                values = tuple(int(float(value)) for value in ratings.strip("[] \r").split(","))
                found.setdefault(text, RatedText(text, values))
    return tuple(found.values())


def split_of(path: Path, kind: str, split: str) -> list[RatedText]:
    """Return the texts of a split; the same on every machine."""
    shuffled = list(rated_texts(path, kind))
    random.Random(SPLIT_SEED).shuffle(shuffled)
    num_test = round(TEST_SHARE * len(shuffled))
    return shuffled[:num_test] if split == "test" else shuffled[num_test:]


def human_ceiling(
    texts: Sequence[RatedText], *, num_pairs: int = 100_000, seed: int = 0
) -> dict[float, float]:
    """Return how often one rater orders two texts as the mean of all other raters does, by the gap of those
    means.

    One rater is drawn for each text; a rater who gives both the same counts half.
    """
    chance = random.Random(seed)
    correct = dict.fromkeys(GAPS, 0.0)
    counted = dict.fromkeys(GAPS, 0)
    for _ in range(num_pairs):
        rated = [_one_and_others(text, chance) for text in chance.sample(texts, 2)]
        gap = rated[0][1] - rated[1][1]
        said = (rated[0][0] - rated[1][0]) * (1 if gap > 0 else -1)
        for least in GAPS:
            if abs(gap) >= least:
                counted[least] += 1
                correct[least] += 1.0 if said > 0 else 0.5 if said == 0 else 0.0
    return {least: correct[least] / max(counted[least], 1) for least in GAPS}


def _one_and_others(text: RatedText, chance: random.Random) -> tuple[int, float]:
    one = chance.choice(text.ratings)
    return one, (sum(text.ratings) - one) / (len(text.ratings) - 1)


def _cells(line: str, place: int) -> tuple[str, str]:
    cells = line.split("\t", place)
    return cells[0].strip(), cells[place]
