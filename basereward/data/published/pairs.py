"""Data sets of pairs in which a question, a better and a worse answer are columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from basereward.data.dataset import FileDataset
from basereward.data.fields import media_of, name_of, number_of, object_of, plain, prompt_fields, text_of
from basereward.data.reading.row import Row
from basereward.data.trl import TRLDataset
from basereward.errors import DataError
from basereward.message import is_filled

QUESTION_COLUMNS: Mapping[str, str] = {
    "question": "the question",
    "chosen": "the better answer",
    "rejected": "the worse answer",
    "image": "the image, or a list of them",
    "images": "instead of image",
    "id": "names the row",
    "idx": "names the row",
}


class QuestionDataset(FileDataset):
    """Rows of `question`, `chosen` and `rejected`, with `image`, `images` or neither."""

    kept: ClassVar[tuple[str, ...]] = ()
    """Fields that become `meta`."""
    columns: Mapping[str, str] = QUESTION_COLUMNS
    published_responses = 2

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        return question_row(row) | {"meta": plain(row, *self.kept)}


def question_row(row: Row) -> Row:
    """Return a row of `question`, `chosen`, `rejected` and images in our own format.

    Raises:
        DataError: Naming the field that is missing or wrong.
    """
    images = media_of(row, "image")
    return {
        "id": name_of(row, "id", "idx"),
        **prompt_fields(text_of(row, "question"), images),
        "responses": [text_of(row, "chosen"), text_of(row, "rejected")],
        "ranks": [0, 1],
    }


def _refuse_path_alone(row: Row) -> None:
    """Refuse a row that names the place of its image and doesn't hold it."""
    if is_filled(row.get("image_path")) and not (is_filled(row.get("image")) or is_filled(row.get("images"))):
        raise DataError(
            "is the place of an image that the row doesn't hold; give it as image", field="image_path"
        )


class RLAIFV(QuestionDataset):
    """RLAIF-V (arXiv 2405.17220): `openbmb/RLAIF-V-Dataset`, Parquet with the images inside."""

    name = "rlaif-v"
    detected_by = ("ds_name", "question", "chosen", "rejected")
    kept = ("ds_name", "origin_dataset", "origin_split", "image_path")
    columns: Mapping[str, str] = {**QUESTION_COLUMNS, "image_path": "the place that the image is from"}

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        _refuse_path_alone(row)
        return super().convert_row(row, directory)


class RLHFV(FileDataset):
    """RLHF-V (arXiv 2312.00849): `openbmb/RLHF-V-Dataset`, question and answers as JSON in `text`."""

    name = "rlhf-v"
    published_responses = 2
    columns: Mapping[str, str] = {
        **QUESTION_COLUMNS,
        "text": "question, chosen and rejected as JSON text",
        "image_path": "the place that the image is from",
    }

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        _refuse_path_alone(row)
        inner = object_of(row, "text") if row.get("text") is not None else row
        converted = question_row({**inner, "image": row.get("image"), "images": row.get("images")})
        return converted | {
            "id": name_of(row, "idx", "id"),
            "meta": plain(row, "ds_name", "origin_dataset", "image_path"),
        }


class OmniAlignVDPO(QuestionDataset):
    """OmniAlign-V-DPO (arXiv 2502.18411): JSONL of `question`, `chosen`, `rejected`, `image`.

    The card does not document the rows; this is the format of InternVL's trainer, for which they were made.
    The images come as a tar archive: unpack it beside the JSONL.
    """

    name = "omnialign-v-dpo"


class SHP(FileDataset):
    """Stanford Human Preferences (arXiv 2110.08420): JSONL of `history` and two comments to it.

    `labels` is 1 where `human_ref_A` is preferred, 0 where it is `human_ref_B`.
    """

    name = "shp"
    published_responses = 2
    detected_by = ("history", "human_ref_A", "human_ref_B", "labels")
    columns: Mapping[str, str] = {
        "history": "the post that is answered",
        "human_ref_A": "one comment",
        "human_ref_B": "the other comment",
        "labels": "1 where A is preferred, 0 where B is",
        "post_id": "names the row",
        "c_root_id_A": "names the row",
        "c_root_id_B": "names the row",
        "score_A": "votes for A",
        "score_B": "votes for B",
        "score_ratio": "the ratio of the votes",
        "upvote_ratio": "the post's votes",
        "created_at_utc_A": "the time of A",
        "created_at_utc_B": "the time of B",
        "seconds_difference": "the time between A and B",
    }

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        label = row.get("labels")
        if label not in (0, 1) or isinstance(label, bool):
            raise DataError(f"1 where A is preferred or 0 where B is, not {label!r:.40}", field="labels")
        return {
            "id": "/".join(map(str, plain(row, "post_id", "c_root_id_A", "c_root_id_B").values())),
            "prompt": text_of(row, "history"),
            "responses": [text_of(row, "human_ref_A"), text_of(row, "human_ref_B")],
            "ranks": [1 - label, label],
            "meta": plain(row, "domain", "score_A", "score_B", "score_ratio"),
        }


class Tulu3IF(TRLDataset):
    """Tulu 3 instruction following: `allenai/tulu-3-IF-augmented-on-policy-70b`."""

    name = "tulu3-if"
    published_responses = 2


class WildChat(TRLDataset):
    """Tulu 3 WildChat: `allenai/tulu-3-wildchat-ultrafeedback`; `split` names one of its five splits."""

    name = "wildchat"
    published_responses = 2


class Olmo2(TRLDataset):
    """The preference mix of OLMo 2: `allenai/olmo-2-0425-1b-preference-mix`.

    `chosen_rating` and `rejected_rating` become ratings where they agree with the choice.
    """

    name = "olmo2"
    published_responses = 2

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        converted = super().convert_row(row, directory)
        better, worse = number_of(row.get("chosen_rating")), number_of(row.get("rejected_rating"))
        if better is not None and worse is not None and better > worse:
            converted["ratings"] = [better, worse]
        return converted


class SkyworkReward(TRLDataset):
    """Skywork-Reward-Preference-80K: `Skywork/Skywork-Reward-Preference-80K-v0.2`, whole conversations."""

    name = "skywork-reward"
    published_responses = 2
