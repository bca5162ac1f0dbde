"""A data set that ends its process, or fails, once, when a file tells it to; a plugin for runs of studies."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from basereward import Comparison, hookimpl
from basereward.data import Dataset

KILL, FAIL = "kill", "fail"


class Troubled(Dataset):
    """Comparisons of animals with colours, the same in every epoch.

    Args:
        trouble: A directory. The first run that finds a file `kill` or `fail` there takes it away, and in its
            second epoch kills its process, or raises an error.
    """

    num_rows = 24

    def __init__(self, *, trouble: Path = Path("none")) -> None:
        self.trouble = trouble

    def set_epoch(self, epoch: int) -> None:
        """Turn to an epoch."""
        if epoch == 0:
            return
        if _taken(self.trouble / KILL):
            os.kill(os.getpid(), signal.SIGKILL)
        if _taken(self.trouble / FAIL):
            raise RuntimeError("out of paper")

    def read(self) -> Iterator[Comparison]:
        """Yield the comparisons."""
        chance = random.Random(0)
        for number in range(self.num_rows):
            good, *bad = (
                " ".join(chance.choices(words, k=chance.randint(1, 3)))
                for words in (("cat", "dog", "red"), ("blue", "fish", "cat"), ("green", "grey"))
            )
            bad = [f"{text} {place}" for place, text in enumerate(bad)]  # no two responses are the same
            yield Comparison(f"what {number}", [good, *bad], ranks=[0, 1, 1], id=str(number), source="words")


def _taken(path: Path) -> bool:
    """Take a file away, and tell whether this process is the one that did."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


@hookimpl
def basereward_datasets() -> Mapping[str, type]:
    """Register the data set."""
    return {"troubled": Troubled}
