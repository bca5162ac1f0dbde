"""Solutions with a label for each step: TRL's stepwise supervision, and the responses that they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from basereward.data.dataset import FileDataset
from basereward.data.fields import media_of, prompt_fields, text_of
from basereward.data.reading.paths import Split
from basereward.data.reading.row import Row
from basereward.errors import DataError

LABELS: Mapping[Any, float | None] = {1: 1.0, 0: 0.0, None: None}  # True is 1, and False is 0
"""Ratings of the labels of steps: right, wrong, and none for a step that is neither."""


def step_responses(
    steps: Sequence[str], ratings: Sequence[float | None], *, separator: str, field: str = "steps"
) -> tuple[list[str], list[float]]:
    """Return the solution up to the end of each step that has a rating, and these ratings.

    Args:
        steps: The texts of a solution's steps.
        ratings: The rating of each; None for a step that counts for nothing, but is a part of the solution.
        separator: What stands between two steps. It ends each step but the last, so that a tokenizer doesn't
            join the end of a step with the next one where it is a line break.
        field: The row's field, for the error.

    Raises:
        DataError: When there are no steps, not as many ratings, an empty step, or no rating at all.
    """
    if not steps or len(steps) != len(ratings):
        raise DataError(f"{len(steps)} steps have {len(ratings)} labels", field=field)
    for number, step in enumerate(steps):
        if not isinstance(step, str) or not step.strip():
            raise DataError("a step is a text that is not empty", field=f"{field}[{number}]")
    responses, labelled = [], []
    for number, rating in enumerate(ratings, start=1):
        if rating is not None:
            responses.append(separator.join(steps[:number]) + separator * (number < len(steps)))
            labelled.append(rating)
    if not labelled:
        raise DataError("no step has a label", field=field)
    return responses, labelled


class StepwiseDataset(FileDataset):
    """TRL's stepwise supervision: `prompt`, the steps in `completions`, in `labels` whether each is right.

    A row becomes a comparison whose responses are the solution up to the end of each step, with ratings 1 and
    0, for the paradigm `steps` and the loss `binary-cross-entropy`. A label of null leaves a step without
    rating. `image`, `images`, `video` and `videos` are read as well.

    Args:
        path: A file, or a directory of such.
        separator: What stands between two steps.
    """

    columns: Mapping[str, str] = {
        "prompt": "the question",
        "completions": "the steps of the solution",
        "labels": "whether each step is right",
        "image": "an image",
        "images": "images",
        "video": "a video",
        "videos": "videos",
    }
    detected_by = ("prompt", "completions", "labels")

    def __init__(
        self,
        path: str | Path,
        *,
        separator: str = "\n",
        source: str | None = None,
        split: Split = None,
        config: str | None = None,
        media_dir: str | None = None,
        media_roots: tuple[str, ...] = (),
        media_hosts: tuple[str, ...] = (),
        ignored_columns: tuple[str, ...] = (),
    ) -> None:
        super().__init__(
            path,
            source=source,
            split=split,
            config=config,
            media_dir=media_dir,
            media_roots=media_roots,
            media_hosts=media_hosts,
            ignored_columns=ignored_columns,
        )
        self.separator = separator

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        steps, labels = row.get("completions"), row.get("labels")
        for name, values in (("completions", steps), ("labels", labels)):
            if not isinstance(values, list | tuple):
                raise DataError("a list is needed, an entry for each step", field=name)
        assert steps is not None
        assert labels is not None
        for number, label in enumerate(labels):
            if not isinstance(label, int | None) or label not in LABELS:
                raise DataError("true, false or null is needed", field=f"labels[{number}]")
        ratings = [LABELS[label] for label in labels]
        responses, labelled = step_responses(steps, ratings, separator=self.separator, field="completions")
        images, videos = media_of(row, "image"), media_of(row, "video")
        return {
            **prompt_fields(text_of(row, "prompt"), images, videos),
            "responses": responses,
            "ratings": labelled,
        }
