"""Omni-RewardBench (arXiv 2510.23451): preferences by a free-form criterion, of responses that are texts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from basereward.data.fields import name_of, text_of, without_marks
from basereward.data.reading.row import Row
from basereward.errors import DataError
from basereward.evaluation.benchmarks.benchmark import Scored
from basereward.evaluation.benchmarks.judge_protocols import OFFICIAL, JudgeProtocol, as_listed_or_wrong
from basereward.evaluation.benchmarks.parts import PART, PartedBenchmark
from basereward.evaluation.benchmarks.unit_scores import by_category, pair_accuracy
from basereward.evaluation.scored_pairs import CATEGORY, GROUP
from basereward.message import PLACEHOLDER, VIDEO_PLACEHOLDER
from basereward.stats.metric import Metric, average, unit_mean

RESPONSES = ("response1", "response2")
TIE = "tie"

MARKS = {"image": PLACEHOLDER, "video": VIDEO_PLACEHOLDER}

MEDIA = "media_data"
"""The directory of the images and videos that rows name."""


def _globs(task: str) -> tuple[str, ...]:
    return (f"{task}_preferences.json", f"{task}/test-*.parquet")


class OmniRewardBench(PartedBenchmark):
    """Omni-RewardBench: its tasks of texts, of texts about an image and about a video; 417, 528 and 443 rows.

    The responses of five other tasks are images, videos, sounds or 3D models, and the prompts of one are
    sounds. Their rows are counted, and not read.

    A row has `prompt`, `response1`, `response2`, `criteria` (the text of the criterion that the preference is
    by), `criteria_preference` ("response1", "response2" or "tie"), and `image` or `video`. The criterion
    is a part of the question: it is added to the prompt. Rows of one prompt and one pair of responses, which
    differ in the criterion, count as dependent.

    Args:
        path: The directory of the hub's copy (`text_to_text/test-*.parquet` and so on), or of the official
            JSON files (`text_to_text_preferences.json`); or a file of one task.
        images: The directory that paths of images and videos start from; if not given, `media_data` beside
            the files.
        show_criterion: Whether the criterion is added to the prompt.
    """

    name = "omni-rewardbench"
    title = "Omni-RewardBench"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        task: _globs(task) for task in ("text_to_text", "text_image_to_text", "text_video_to_text")
    }
    unsupported_parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        task: _globs(task)
        for task in (
            "text_audio_to_text",
            "text_to_image",
            "text_to_video",
            "text_to_audio",
            "text_to_3D",
            "text_image_to_image",
        )
    }
    why_unsupported = "prompts or responses hold what no model here reads"
    size = 1388
    ties: str = "equal rewards count as wrong, and as right only where the data has a tie"
    orders_responses: ClassVar[bool] = True
    judge_protocols: ClassVar[Mapping[str, JudgeProtocol]] = {OFFICIAL: as_listed_or_wrong}

    def __init__(self, path: str | Path, *, images: Path | None = None, show_criterion: bool = True) -> None:
        super().__init__(path, images=images)
        self.show_criterion = show_criterion

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format, response 1 first."""
        preference = row.get("criteria_preference")
        if preference not in (*RESPONSES, TIE):
            raise DataError(
                f'"response1", "response2" or "tie" is needed, not {preference!r}',
                field="criteria_preference",
            )
        task, question = str(row[PART]), text_of(row, "prompt")
        responses = [text_of(row, response) for response in RESPONSES]
        media = self._media(row, task)
        for kind, items in media.items():
            question = without_marks(question, len(items), MARKS[kind.removesuffix("s")])
        if self.show_criterion:
            question += f"\n\nThe answer is judged by this criterion: {text_of(row, 'criteria')}"
        pair = "\0".join((text_of(row, "prompt"), *responses))
        ranks = [0, 0] if preference == TIE else [int(preference != response) for response in RESPONSES]
        return {
            "id": name_of(row, "id"),
            "prompt": question,
            **media,
            "responses": responses,
            "ranks": ranks,
            "meta": {CATEGORY: task, GROUP: hashlib.blake2b(pair.encode(), digest_size=8).hexdigest()},
        }

    def metrics(self, scored: Scored) -> Mapping[str, Metric]:
        """Return the mean of the tasks and each task without ties, and the same with ties."""
        tasks = by_category(scored)
        metrics: dict[str, Metric] = {}
        if tasks:
            metrics[f"mean of {len(tasks)} tasks"] = average(list(tasks.values()))
        metrics |= tasks
        if (scored.ranks[:, 0] == scored.ranks[:, 1]).any():
            with_ties = {
                task: _with_ties(scored, where)
                for task in dict.fromkeys(item.category for item in scored.items)
                if (where := scored.of_category(task)).any()
            }
            metrics[f"mean of {len(with_ties)} tasks, with ties"] = average(
                list(with_ties.values()), kind="variant"
            )
            metrics |= {f"{task}, with ties": metric for task, metric in with_ties.items()}
        metrics["all pairs alike"] = pair_accuracy(scored, kind="variant")
        return metrics

    def _media(self, row: Row, task: str) -> dict[str, list[Any]]:
        kind = next((kind for kind in MARKS if kind in task), None)
        if kind is None:
            return {}
        value: Any = row.get(kind)
        if value is None:
            value = row.get(f"{kind}_path")
        if value is None:
            raise DataError("is missing", field=kind)
        if kind == "video" and isinstance(value, dict):
            value = value["path"] if value.get("bytes") is None else value["bytes"]
        return {f"{kind}s": [self.image(value, MEDIA) if isinstance(value, str) else value]}


def _with_ties(
    scored: Scored,
    where: NDArray[np.bool_],  # [K]
) -> Metric:
    """Return the share of rows whose rewards are in the order of the ranks, or equal where these are."""
    rewards, ranks = scored.rewards[where], scored.ranks[where]
    order = np.sign(ranks[:, 1] - ranks[:, 0])
    unit_scores = (np.sign(rewards[:, 0] - rewards[:, 1]) == order).astype(np.float64)
    # Random rewards are never equal.
    chance = np.where(order == 0, 0.0, 0.5)
    return unit_mean(unit_scores, scored.group[where], chance, kind="variant")
