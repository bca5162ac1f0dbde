"""The first run file of a user: written by what the model's settings and the first rows of the data say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from basereward.config.run import DEFAULT_ADAPTER_LR, DEFAULT_LR
from basereward.data.formats import detected, open_rows
from basereward.data.refusals import MAX_SHARE, reasons_of
from basereward.errors import ConfigError, DataError
from basereward.interop.importing import backbone_of
from basereward.storage.hub import fetch_hint

NUM_ROWS = 1000
"""Rows of each file that are looked at."""


@dataclass(frozen=True)
class Looked:
    """The first rows of a file.

    Args:
        path: The file, as it was given.
        dataset: The name of the dataset that reads it.
        num_rows: The rows that were looked at.
        is_all: Whether there are no others.
        num_refused: How many of them can't be used.
        num_with_images: How many have images or videos.
        num_responses: The number of responses that most of them have.
    """

    path: str
    dataset: str
    num_rows: int
    is_all: bool
    num_refused: int
    num_with_images: int
    num_responses: int

    @property
    def line(self) -> str:
        """The facts in one line."""
        rows = f"{self.num_rows:,} rows" if self.is_all else f"the first {self.num_rows:,} rows"
        refused = f", {self.num_refused:,} of which can't be used" if self.num_refused else ""
        media = f"{self.num_with_images:,} with images" if self.num_with_images else "without images"
        what = f"{media}, mostly of {self.num_responses} responses"
        return f"{rows} of the layout {self.dataset}{refused}: {what}"


def look_at(path: str, media_dir: str | None = None) -> Looked:
    """Read the first rows of a file or directory.

    Args:
        path: The file or directory.
        media_dir: Where its images lie, unless they lie beside it.

    Raises:
        DataError: When there is no such file, its layout isn't known, or most of its rows can't be used.
    """
    name = detected(path)
    items = list(islice(open_rows(path, name, _media(media_dir)).read(), NUM_ROWS + 1))
    is_all, items = len(items) <= NUM_ROWS, items[:NUM_ROWS]
    errors = [item for item in items if isinstance(item, DataError)]
    rows = [item for item in items if not isinstance(item, DataError)]
    if len(errors) > MAX_SHARE * len(items):
        counted = f"{len(errors):,} of {len(items):,} rows can't be used as {name}"
        raise DataError(f"{counted}: {reasons_of(errors)}", file=path)
    return Looked(
        path,
        name,
        len(items),
        is_all,
        len(errors),
        sum(bool(row.images or row.videos) for row in rows),
        Counter(len(row.responses) for row in rows).most_common(1)[0][0],
    )


def starter_run(
    model: str,
    train: Sequence[str],
    held_out: Sequence[str] = (),
    *,
    output: str,
    lora_rank: int | None = None,
    media_dir: str | None = None,
) -> str:
    """Return the text of a run file that trains a model on files of comparisons.

    Args:
        model: A directory of a transformers model.
        train: Files or directories of comparisons.
        held_out: Files or directories to evaluate on.
        output: Directory of the run.
        lora_rank: Rank of adapters that are trained instead of the weights; None for the weights.
        media_dir: Where the images of all files lie; None for beside each.

    Raises:
        ConfigError: When no backbone reads the model, the text model is to read images, or a rank is none.
        DataError: When a file can't be read.
    """
    if lora_rank is not None and lora_rank < 1:
        raise ConfigError(f"the rank of adapters must be at least 1, not {lora_rank}")
    if not Path(model, "config.json").is_file():
        raise ConfigError(
            f"{model} is no directory of a transformers model: it has no config.json{fetch_hint(model)}"
        )
    backbone = backbone_of(Path(model))
    sources, evals = ([look_at(path, media_dir) for path in paths] for paths in (train, held_out))
    sees = backbone != "causal-lm"
    for looked in (*sources, *evals):
        if looked.num_with_images and not sees:
            raise ConfigError(
                f"{model} reads text alone, and {looked.path} has images; give a vision-language model"
            )
    freezes = sees and lora_rank is None
    train_settings: dict[str, Any] = {
        "epochs": 1,
        "batch_size": 32,
        "micro_batch_tokens": 8192,
        "lr": DEFAULT_LR if lora_rank is None else DEFAULT_ADAPTER_LR,
        **({"freeze": ["vision"]} if freezes else {}),
    }
    blocks = [
        _block(
            "",
            {"output": output, "seed": 0},
            "Every setting and its default: docs/run-file.md, or `basereward show train` (run, data, lora).",
        ),
        _block("[backbone]", {"name": backbone, "model": model}),
        _block("[head]", {"name": "mlp", "num_layers": 2, "activation": "silu"}, "The paper's choice."),
        _block("[loss]", {"name": "bradley-terry"}),
        *(_data("train", looked, media_dir) for looked in sources),
        *(_data("eval", looked, media_dir) for looked in evals),
    ]
    if not evals:
        blocks.append(
            "# Without held-out rows nothing tells whether the model learns, and the last model is kept.\n"
            "# Give some as [[data.eval]], with `name` and `path` of a file that training does not read.\n"
        )
    blocks.append(
        _block(
            "[train]",
            train_settings,
            "`micro_batch_tokens` bounds the memory and changes no result; see `basereward plan`.",
        )
    )
    if lora_rank is not None:
        lora = {"rank": lora_rank, "alpha": 2.0 * lora_rank}
        blocks.append(_block("[train.lora]", lora, "The model is saved with its adapters merged."))
    return "\n".join(blocks)


def _media(media_dir: str | None) -> dict[str, str]:
    return {} if media_dir is None else {"media_dir": media_dir}


def _data(part: str, looked: Looked, media_dir: str | None) -> str:
    settings = {"name": looked.dataset, "path": looked.path, **_media(media_dir)}
    return _block(f"[[data.{part}]]", settings, f"{looked.line}.")


def _block(header: str, settings: Mapping[str, Any], comment: str = "") -> str:
    import tomli_w

    lines = [f"# {comment}"] if comment else []
    if header:
        lines.append(header)
    return "\n".join([*lines, tomli_w.dumps(settings)])
