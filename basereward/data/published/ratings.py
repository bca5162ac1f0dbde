"""Data sets whose responses have ratings; all responses to a prompt stay together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from basereward.data.dataset import FileDataset
from basereward.data.fields import (
    as_list,
    name_of,
    number_of,
    plain,
    prompt_fields,
    rated,
    records,
    text_of,
    turns_of,
)
from basereward.data.published.grouped import GroupedDataset
from basereward.data.reading.paths import Split
from basereward.data.reading.row import Row
from basereward.errors import ConfigError, DataError

VLFEEDBACK_ASPECTS = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")


class VLFeedback(FileDataset):
    """VLFeedback (arXiv 2410.09421): `MMInstruction/VLFeedback`, four responses a prompt.

    A response's rating is the mean of the three aspects that are rated; "N/A" counts as not rated.
    """

    name = "vlfeedback"
    published_responses = 4
    detected_by = ("prompt", "completions")
    columns: Mapping[str, str] = {
        "prompt": "the question",
        "completions": "the responses with their ratings",
        "image": "the image",
        "images": "instead of image",
        "img_path": "instead of image",
        "id": "names the row",
    }

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        completions = records(row.get("completions"), "completions")
        # `img_path` is where an image is from that stands in the row.
        images = as_list(next((row[key] for key in ("image", "images", "img_path") if row.get(key)), None))
        return {
            "id": name_of(row, "id"),
            **prompt_fields(text_of(row, "prompt"), images),
            **rated(
                [text_of(completion, "response") for completion in completions],
                [_mean(completion.get("annotations"), VLFEEDBACK_ASPECTS) for completion in completions],
            ),
        }


ULTRAFEEDBACK_ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")


class UltraFeedback(FileDataset):
    """UltraFeedback (arXiv 2310.01377): `openbmb/UltraFeedback`, four completions an instruction.

    Args:
        subset: `all` completions, the paper's Ultra-All; or `hard`, its Ultra-Hard: of each instruction the
            best and the worst completion only (arXiv 2509.16127, table 4).
        score: `overall` is the judge's own score, `fine-grained` the mean of its four aspects. The paper
            doesn't say which it took.
    """

    name = "ultrafeedback"
    published_responses = 4
    detected_by = ("instruction", "completions")
    columns: Mapping[str, str] = {
        "instruction": "the question",
        "completions": "the responses with their scores",
        "source": "goes to meta",
        "correct_answers": "what a right answer holds; no part of the question",
        "incorrect_answers": "what a wrong answer holds; no part of the question",
    }

    def __init__(
        self,
        path: str | Path,
        *,
        subset: Literal["all", "hard"] = "all",
        score: Literal["overall", "fine-grained"] = "overall",
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
        self.subset = subset
        self.score = score

    @classmethod
    def responses_of(cls, options: Mapping[str, Any]) -> int | None:
        """Return 2 of the hard subset, and 4 of all completions."""
        return 2 if options.get("subset") == "hard" else cls.published_responses

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        completions = records(row.get("completions"), "completions")
        answers = rated(
            [text_of(completion, "response") for completion in completions],
            [self._score(completion) for completion in completions],
        )
        if self.subset == "hard":
            answers = hardest(answers)
        return {
            "id": name_of(row, "id"),
            "prompt": text_of(row, "instruction"),
            **answers,
            "meta": plain(row, "source"),
        }

    def _score(self, completion: Mapping[str, Any]) -> float | None:
        if self.score == "overall":
            return number_of(completion.get("overall_score"))
        fine = number_of(completion.get("fine-grained_score"))
        return fine if fine is not None else _mean(completion.get("annotations"), ULTRAFEEDBACK_ASPECTS)


def hardest(answers: Row) -> Row:
    """Return best and worst response of those that have ratings.

    Raises:
        DataError: When all have the same.
    """
    ratings = answers["ratings"]
    best, worst = ratings.index(max(ratings)), ratings.index(min(ratings))
    if ratings[best] == ratings[worst]:
        raise DataError("all responses have the same rating, so no pair is the one that differs most")
    chosen = sorted((best, worst))
    return {name: [answers[name][at] for at in chosen] for name in ("responses", "ratings")}


ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
"""The attributes that HelpSteer and HelpSteer2 rate."""

TURN = re.compile(r"<extra_id_1>(User|Assistant)\n")


class HelpSteer(GroupedDataset):
    """HelpSteer, HelpSteer2 and HelpSteer3 (arXiv 2311.09528, 2406.08673, 2503.04378), and rows like theirs.

    Rows with `prompt`, `response` and ratings, of which those of one prompt stand together; all ratings of
    each response are in the comparison's `meta` as `attributes`. Or rows with two responses and a preference
    from -3 (the first is better) to 3: `response_1`, `response_2` and `preference_strength`, or `response1`,
    `response2` and `overall_preference`.

    Args:
        rating: The column of the rating that counts.
    """

    name = "helpsteer"
    columns: Mapping[str, str] = {
        "prompt": "the question",
        "context": "instead of prompt: a conversation",
        "response": "a response",
        **dict.fromkeys(ATTRIBUTES, "its rating"),
        **dict.fromkeys(("response_1", "response_2", "response1", "response2"), "two responses"),
        "preference_strength": "from -3, the first is better, to 3",
        "overall_preference": "from -3, the first is better, to 3",
        "preference_statement": "why",
        "preference_elaboration": "why",
        "individual_preference": "the preferences of single people",
    }

    def __init__(
        self,
        path: str | Path,
        *,
        rating: str = "helpfulness",
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
        if not rating:
            raise ConfigError("rating is the name of a column, such as 'helpfulness'")
        self.rating = rating
        self.columns = {**type(self).columns, rating: "its rating"}

    def key(self, row: Row) -> Any:
        """Return the prompt; a row with two responses stands alone."""
        return row.get("prompt") if "response" in row else None

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return a row of one response and its rating, or of two responses and their ratings."""
        prompt = _prompt(row)
        if "response" in row:
            rating = number_of(row.get(self.rating))
            if rating is None:
                raise DataError("is no number", field=self.rating)
            scores = {name: number_of(row.get(name)) for name in ATTRIBUTES}
            attributes = {name: score for name, score in scores.items() if score is not None}
            response = text_of(row, "response")
            meta = {"meta": {"attributes": [attributes]}} if attributes else {}
            return {"prompt": prompt, "responses": [response], "ratings": [rating], **meta}
        names = ("response_1", "response_2") if "response_1" in row else ("response1", "response2")
        field = "preference_strength" if "preference_strength" in row else "overall_preference"
        preference = number_of(row.get(field))
        if preference is None:
            raise DataError("is no number", field=field)
        responses = [text_of(row, name) for name in names]
        return {"prompt": prompt, "responses": responses, "ratings": [0.0, preference]}

    def joined(self, rows: list[Row]) -> list[Row]:
        """Return one comparison of all responses to a prompt."""
        responses = [response for row in rows for response in row["responses"]]
        ratings = [rating for row in rows for rating in row["ratings"]]
        attributes_of = {
            row["responses"][0]: row["meta"]["attributes"][0] for row in reversed(rows) if row.get("meta")
        }
        joint = rated(responses, ratings)
        attributes = [attributes_of.get(response) for response in joint["responses"]]
        meta = {"meta": {"attributes": attributes}} if attributes_of else {}
        return [{**rows[0], **joint, **meta}]


def _prompt(row: Row) -> Any:
    if row.get("context") is not None:
        return turns_of(row["context"], "context")
    text = text_of(row, "prompt")
    pieces = TURN.split(text)
    if len(pieces) == 1:
        return text
    # HelpSteer2 writes the earlier turns of a conversation into the prompt, with Nemotron's marks between.
    turns = [{"role": "user", "content": pieces[0].strip()}]
    for speaker, content in zip(pieces[1::2], pieces[2::2], strict=True):
        turns.append({"role": speaker.lower(), "content": content.strip()})
    return turns


def _mean(annotations: Any, aspects: tuple[str, ...]) -> float | None:
    """Return the mean of the ratings of some aspects, of those that have one."""
    if not isinstance(annotations, dict):
        return None
    ratings = []
    for aspect in aspects:
        annotation = annotations.get(aspect)
        rating = number_of(annotation.get("Rating")) if isinstance(annotation, dict) else None
        if rating is not None:
            ratings.append(rating)
    return sum(ratings) / len(ratings) if ratings else None
