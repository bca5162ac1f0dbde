"""MM-RLHF: human rankings of three to five responses, published as pairs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basereward.data.fields import as_list, name_of, prompt_fields, text_of
from basereward.data.published.grouped import GroupedDataset
from basereward.data.reading.paths import Split, files_of
from basereward.data.reading.row import Row

PAIRS = "dpo_pairs.jsonl"


class MMRLHF(GroupedDataset):
    """MM-RLHF (arXiv 2502.10391): `yifanzhang114/MM-RLHF`, whose pairs are put together to rankings again.

    Rows have `prompt`, `chosen`, `rejected`, `image` or `video` (a folder of frames), perhaps `is_tie`, and
    `chosen_reason` and `rejected_reason`, which become the `critiques` that the critic paradigm reads. Pairs
    of one prompt that stand together become one comparison if they say all that its ranks would say: that is,
    if responses that no pair ranks are ties. Otherwise each pair stays one comparison.
    """

    name = "mm-rlhf"
    columns: Mapping[str, str] = {
        "prompt": "the question",
        "chosen": "the better response",
        "rejected": "the worse response",
        "image": "the image",
        "video": "a folder of frames",
        "is_tie": "whether neither is better",
        "chosen_reason": "the critique of chosen",
        "rejected_reason": "the critique of rejected",
        "id": "names the row",
    }

    def data_files(self, split: Split, config: str | None) -> list[Path]:
        """Return the file of pairs of a directory that has it; `data.jsonl` beside it holds the same."""
        path = self.path if config is None else self.path / config
        return [path / PAIRS] if (path / PAIRS).is_file() else files_of(path, split=split)

    def key(self, row: Row) -> Any:
        """Return prompt and images."""
        return (row["prompt"], str(row.get("image")), str(row.get("video")))

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return one pair in our own format."""
        images = [_beside(image, directory) for image in as_list(row.get("image"))]
        videos = [_beside(video, directory) for video in as_list(row.get("video"))]
        return {
            "id": name_of(row, "id"),
            **prompt_fields(text_of(row, "prompt"), images, videos),
            "responses": [text_of(row, "chosen"), text_of(row, "rejected")],
            "ranks": [0, 0] if row.get("is_tie") else [0, 1],
            **_critiques([row.get("chosen_reason"), row.get("rejected_reason")]),
        }

    def joined(self, rows: list[Row]) -> list[Row]:
        """Return one ranking, or the pairs where they make none."""
        ranks = ranking([(*row["responses"], row["ranks"] == [0, 0]) for row in rows])
        if ranks is None:
            return rows
        critique_of = {
            text: critique
            for row in rows
            for text, critique in zip(
                row["responses"], row.get("meta", {}).get("critiques", ()), strict=False
            )
            if critique
        }
        joint = {"responses": list(ranks), "ranks": list(ranks.values())}
        return [{**rows[0], **joint, **_critiques([critique_of.get(text) for text in ranks])}]


def ranking(pairs: list[tuple[str, str, bool]]) -> dict[str, int] | None:
    """Return ranks of texts that imply exactly the given pairs; None where no ranks do.

    Args:
        pairs: (better, worse, whether they are tied after all).
    """
    texts = list(dict.fromkeys(text for first, second, _ in pairs for text in (first, second)))
    beats = {(first, second) for first, second, is_tie in pairs if not is_tie}
    if any((second, first) in beats for first, second in beats):
        return None
    # In a ranking with ties, one who is beaten by more stands lower, and ties are beaten by the same.
    num_better = {text: sum((other, text) in beats for other in texts) for text in texts}
    levels = sorted(set(num_better.values()))
    ranks = {text: levels.index(num_better[text]) for text in texts}
    said = {(first, second) for first in texts for second in texts if ranks[first] < ranks[second]}
    ties = {(first, second) for first, second, is_tie in pairs if is_tie}
    return ranks if said == beats and all(ranks[first] == ranks[second] for first, second in ties) else None


def _critiques(texts: list[Any]) -> Row:
    """Return the entry of a row for the critiques of its responses; none where there is no critique."""
    critiques = [text if isinstance(text, str) and text.strip() else None for text in texts]
    return {"meta": {"critiques": critiques}} if any(critiques) else {}


def _beside(name: Any, directory: Path) -> Any:
    """Return the path of an image or folder of frames; the hub's copy lacks the folder of the category."""
    if not isinstance(name, str):
        return name
    places = (name, f"images/{name}", f"images/{os.path.basename(name)}")
    return next((place for place in places if os.path.exists(directory / place)), name)
