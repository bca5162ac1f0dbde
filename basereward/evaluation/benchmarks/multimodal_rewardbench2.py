"""Multimodal RewardBench 2 (arXiv 2512.16899): the pairs of its reasoning task whose responses are texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from basereward.data.fields import parsed_json, text_of
from basereward.data.reading.row import Row
from basereward.data.reading.rows import read_rows
from basereward.errors import DataError
from basereward.evaluation.benchmarks.benchmark import Scored
from basereward.evaluation.benchmarks.judge_protocols import FIRST, OFFICIAL, Judged
from basereward.evaluation.benchmarks.parts import PartedBenchmark
from basereward.evaluation.benchmarks.unit_scores import by_category, pair_accuracy
from basereward.evaluation.scored_pairs import CATEGORY, GROUP
from basereward.message import PLACEHOLDER
from basereward.stats.metric import Metric, Score, unit_mean
from basereward.storage.reading import read_json

REASONING = "reasoning"
SIDES = ("a", "b")

IMAGE_MARK = re.compile(r"<image_\d+>")
"""The place of an image in a text of the hub's copy."""

OFFICIAL_JUDGE: Final = f"{REASONING}, {OFFICIAL}"
"""The accuracy of a judge's verdicts as `compute_accuracy.py` counts them."""


class MultimodalRewardBench2(PartedBenchmark):
    """Multimodal RewardBench 2: of the reasoning task's 1,000 pairs the 350 whose responses hold no image.

    The other pairs of that task, and the tasks t2i, edit and interleaved, have images in their responses.
    They are counted, and not read.

    A pair has `prompt_content` and, in `response_a` and `response_b`, `response_content`: lists of a kind
    ("text" or "image") and a text or a path; and `chosen`, "A" or "B". Rows of the hub's copy have
    `prompt_text` with marks of images, `prompt_images`, `response_a_text`, `response_a_images` and so on.

    Chosen is A in 53 (t2i), 55 (edit), 57 (interleaved) and 47 % (reasoning) of the tasks' pairs, so that
    always preferring the first response is no chance.

    Args:
        path: `reasoning.json` as the official build writes it, or a Parquet file of the hub's copy; or the
            directory that all of it lies in.
    """

    name = "multimodal-rewardbench2"
    title = "Multimodal RewardBench 2"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        REASONING: (
            "reasoning.json",
            "benchmark/reasoning.json",
            "reasoning/test-*.parquet",
            "reasoning*.parquet",
        )
    }
    unsupported_parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        task: (f"{task}.json", f"benchmark/{task}.json", f"{task}/test-*.parquet")
        for task in ("t2i", "edit", "interleaved")
    }
    why_unsupported = "their responses hold images"
    size = 350
    orders_responses: ClassVar[bool] = True

    def rows_of(self, file: Path) -> Iterator[tuple[int, Row | DataError]]:
        """Yield each pair of a file with its number."""
        if file.suffix != ".json":
            yield from read_rows(file)
            return
        try:
            pairs = read_json(file)["pairs"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                'is no object of "pairs", as the official build writes it', file=str(file)
            ) from error
        for number, pair in enumerate(pairs, start=1):
            yield number, pair if isinstance(pair, dict) else DataError("is no object", line=number)

    def is_supported(self, row: Row) -> bool:
        """Tell whether both responses are texts."""
        return not any(_holds_image(row, side) for side in SIDES)

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the pair in our own format, response A first."""
        chosen = text_of(row, "chosen").upper()
        if chosen not in ("A", "B"):
            raise DataError(f'"A" or "B" is needed, not {row["chosen"]!r}', field="chosen")
        source = row.get("prompt_source") or ""
        metadata = parsed_json(row.get("prompt_metadata") or {}, "prompt_metadata")
        prompt, images = self._prompt(row)
        return {
            "id": row.get("id") or row.get("pair_id"),
            "prompt": prompt,
            "images": images,
            "responses": [_response(row, side) for side in SIDES],
            "ranks": [int(chosen != side.upper()) for side in SIDES],
            "meta": {
                CATEGORY: source,
                # Pairs about one question are not independent of each other.
                **({GROUP: f"{source} {json.dumps(metadata, sort_keys=True)}"} if metadata else {}),
            },
        }

    def metrics(self, scored: Scored) -> Mapping[str, Metric]:
        """Return the accuracy of the reasoning task's texts, and by the source of the prompt."""
        return {REASONING: pair_accuracy(scored), **by_category(scored)}

    def judge_metrics(self, rewards: Sequence[Sequence[float] | None], judged: Judged) -> dict[str, Metric]:
        """Return a judge's metrics, with the official script's: the share of right verdicts, each order's
        first one counted by itself, and those that can't be read left out.

        Raises:
            DataError: When there is nothing to count.
        """
        metrics = {}
        if any(scores is not None for scores in rewards):
            metrics = super().judge_metrics(rewards, judged)
        right, pair = [], []
        for number, item in enumerate(self.items):
            for order in ((0, 1), (1, 0)):
                verdicts = judged.get(number, {}).get(order, ())
                if verdicts and verdicts[0] is not None:
                    better = order[0] if verdicts[0] == FIRST else order[1]
                    right.append(float(item.ranks[better] == min(item.ranks)))
                    pair.append(number)
        if right:
            chance = np.full(len(right), 0.5)
            metrics[OFFICIAL_JUDGE] = unit_mean(
                np.array(right), np.array(pair), chance, unit="verdicts", kind="variant"
            )
        if not metrics:
            raise DataError("no verdict could be read, and no protocol counts that")
        return metrics

    def report_judge(self, rewards: Sequence[Sequence[float] | None], judged: Judged) -> dict[str, Score]:
        """Return a judge's metrics as `report` returns those of rewards."""
        is_scored = any(scores is not None for scores in rewards)
        scores = super().report_judge(rewards, judged) if is_scored else {}
        metrics = self.judge_metrics(rewards, judged)
        if OFFICIAL_JUDGE in metrics:
            scores[OFFICIAL_JUDGE] = Score.of(OFFICIAL_JUDGE, metrics[OFFICIAL_JUDGE])
        return scores

    def without_protocol(self, name: str) -> str:
        """Return the name of a metric without the title of a judge's protocol."""
        return name.removesuffix(f", {OFFICIAL}")

    def _prompt(self, row: Row) -> tuple[str, list[Any]]:
        """Return the prompt with placeholders of its images, and the images."""
        if "prompt_text" in row:
            images = list(row.get("prompt_images") or ())
            text = _plain(row.get("prompt_text") or "")
            prompt = IMAGE_MARK.sub(PLACEHOLDER, text)
            # As the official build does it, images without marks come last.
            return prompt if IMAGE_MARK.search(text) else prompt + PLACEHOLDER * len(images), images
        parts = _content(row.get("prompt_content"), "prompt_content")
        images = [self.image(value, "benchmark") for kind, value in parts if kind == "image"]
        return "".join(PLACEHOLDER if kind == "image" else _plain(value) for kind, value in parts), images


def _plain(text: str) -> str:
    """Return a text without literals of our own placeholder."""
    return text.replace(PLACEHOLDER, "")


def _content(value: Any, field: str) -> list[tuple[str, str]]:
    """Return the kind and the value of each part of a content.

    Raises:
        DataError: When it is no such list.
    """
    if not isinstance(value, list) or not all(
        isinstance(part, list | tuple) and len(part) == 2 and all(isinstance(each, str) for each in part)
        for part in value
    ):
        raise DataError('a list of ["text", TEXT] and ["image", PATH] is needed', field=field)
    return [(part[0], part[1]) for part in value]


def _holds_image(row: Row, side: str) -> bool:
    if row.get(f"response_{side}_images"):
        return True
    response = row.get(f"response_{side}")
    content = response.get("response_content") if isinstance(response, dict) else None
    return isinstance(content, list) and any(part and part[0] == "image" for part in content)


def _response(row: Row, side: str) -> str:
    if (text := row.get(f"response_{side}_text")) is not None:
        return str(text)
    response = row.get(f"response_{side}")
    if not isinstance(response, dict):
        raise DataError("must be an object", field=f"response_{side}")
    field = f"response_{side}.response_content"
    return "".join(text for _, text in _content(response.get("response_content"), field))
