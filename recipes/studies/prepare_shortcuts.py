"""Write what the studies of shortcuts read to .cache/study: rows, proxies of text alone, and weights by them.

Run as `python recipes/studies/prepare_shortcuts.py` in the repository's root, with `marker` or `topic` for
one of them. What is there already stays. A proxy is trained on one half of the training rows, without images,
and weighs the other half.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from basereward_mini import assets
from basereward_mini.alignment import save_aligned
from prepare import PLACE
from shortcut_data import SHARE, marked, topical, within_topics

from basereward import Comparison
from basereward.cli import main
from basereward.data.writing import open_writer

OPTIONS = {"num_layers": 4, "grid": 3, "num_views": 3, "feature_dropout": 0.3}
"""Of the model, as the demo aligns it before its training."""

NUM_TEXTS, NUM_TRAIN, NUM_TEST, NUM_USELESS = 480, 240, 120, 360
"""Rows that the proxies learn from, those of the training, and those of the tests; more where the shortcut is
useless, since differences are small there.
"""

ROWS: dict[str, Callable[[str, float, str], Iterator[Comparison]]] = {"marker": marked, "topic": topical}
"""From a split, how often responses follow the shortcut there, and a name: rows."""


def prepare(shortcut: str) -> None:
    """Write rows, proxies and weights of a shortcut."""
    rows = ROWS[shortcut]
    write(f"{shortcut}-as-trained", lambda: islice(rows("test", SHARE, "as trained"), NUM_TEST))
    useless = within_topics("test", "useless") if shortcut == "topic" else rows("test", 0.5, "useless")
    write(f"{shortcut}-useless", lambda: islice(useless, NUM_USELESS))
    write(f"{shortcut}-misleading", lambda: islice(rows("test", 1 - SHARE, "misleading"), NUM_TEST))
    training = list(islice(rows("train", SHARE, "train"), NUM_TEXTS))
    halves = {"a": training[0::2], "b": training[1::2]}
    for half, chosen in halves.items():
        name = f"{shortcut}-train-{half}"
        write(name, lambda chosen=chosen: chosen[: NUM_TRAIN // 2])
        write(f"{name}-text", lambda chosen=chosen: (row.without_images() for row in chosen))
    for half, other in zip(halves, reversed(halves), strict=True):
        proxy = PLACE / f"{shortcut}-proxy-{half}"
        if not (proxy / "model" / "reward_config.json").is_file():
            path = PLACE / f"{shortcut}-train-{half}-text.jsonl"
            settings = ("--set", f"output={proxy}", "--set", f"data.train.0.path={path}")
            run("train", "recipes/studies/shortcut-proxy.toml", *settings, "--overwrite")
        weighted = PLACE / f"{shortcut}-train-{other}-weighted.jsonl"
        if not weighted.is_file():
            unweighted = PLACE / f"{shortcut}-train-{other}.jsonl"
            output = ("--output", str(weighted), "--images", "keep")
            run("data", "weights", str(proxy / "model"), str(unweighted), *output)


def write(name: str, rows: Callable[[], Iterable[Comparison]]) -> None:
    """Write rows to a file, unless it is there."""
    path = PLACE / f"{name}.jsonl"
    if not path.is_file():
        with open_writer(path) as writer:
            for row in rows():
                writer.write(row)


def run(*command: str) -> None:
    """Run a command of basereward."""
    if main(list(command)):
        raise SystemExit(f"basereward {' '.join(command)} failed")


def save_model() -> None:
    """Write the model that sees, unless it is there."""
    PLACE.mkdir(parents=True, exist_ok=True)
    if not (PLACE / "aligned").exists():
        cache = assets.cache_directory() / "mini-vlm"  # which the demo fills, too
        save_aligned(PLACE / "aligned-unfinished", cache=cache, **OPTIONS)
        (PLACE / "aligned-unfinished").rename(PLACE / "aligned")


if __name__ == "__main__":
    save_model()
    for name in sys.argv[1:] or ROWS:
        prepare(name)
