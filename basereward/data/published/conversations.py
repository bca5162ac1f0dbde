"""Data sets of pairs whose rows hold conversations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basereward.comparison import PLACEHOLDER
from basereward.data.dataset import FileDataset
from basereward.data.fields import (
    answer_of,
    as_list,
    name_of,
    plain,
    turn_of,
    turns_of,
    without_marks,
)
from basereward.data.published.battles import BattleDataset
from basereward.data.reading.paths import Split
from basereward.data.reading.row import Row
from basereward.data.trl import split, trl_row
from basereward.errors import DataError


class ShareGPT(FileDataset):
    """Pairs of LLaMA-Factory and ms-swift: `conversations` or `messages`, and what continues them.

    - LLaMA-Factory: `conversations` of `{"from", "value"}`, `chosen` and `rejected` as one such turn or a
      text, `system`, `images`, `videos`.
    - ms-swift: `messages` of `{"role", "content"}` whose last is the better answer, and `rejected_response`;
      or `rejected_messages`, the whole conversation again. `rejected_images` must be the images of
      `images`: a response has no images of its own.
    """

    detected_by = ("conversations", "chosen", "rejected")

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        field = "conversations" if row.get("conversations") is not None else "messages"
        turns = turns_of(row.get(field), field)
        if row.get("system"):
            turns = [turn_of(row["system"], "system", "system"), *turns]
        if row.get("rejected_messages") is not None:
            prompt, chosen, rejected = split(
                None, turns, turns_of(row["rejected_messages"], "rejected_messages")
            )
        elif row.get("rejected_response") is not None:
            prompt, chosen = turns[:-1], answer_of(turns[-1], field)
            rejected = answer_of(row["rejected_response"], "rejected_response")
        else:
            prompt, chosen = turns, answer_of(row.get("chosen"), "chosen")
            rejected = answer_of(row.get("rejected"), "rejected")
        images = as_list(row.get("images") if row.get("image") is None else row["image"])
        if row.get("rejected_images") and as_list(row["rejected_images"]) != images:
            raise DataError(
                "differ from images, but a response has no images of its own", field="rejected_images"
            )
        if not prompt:
            raise DataError("there is no turn before the answer", field=field)
        return {
            "id": name_of(row, "id"),
            "prompt": prompt,
            "images": images,
            "videos": as_list(row.get("videos")),
            "responses": [chosen, rejected],
            "ranks": [0, 1],
            "meta": plain(row, "source", "category"),
        }


class MMIF(ShareGPT):
    """MM-IFDPO-23k (arXiv 2504.07957): the DPO file of `ChrisDing1105/MMIF-23k`, a JSON list.

    Turns name no speaker; each row has one image, whatever its marks say.
    """

    name = "mmif"

    def data_files(self, split: Split, config: str | None) -> list[Path]:
        """Return the files of a directory whose names say DPO, where some do; others are for fine-tuning."""
        files = super().data_files(split, config)
        return [file for file in files if "dpo" in file.name.lower()] or files

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        converted = super().convert_row(row, directory)
        return converted | {"prompt": _remarked(converted["prompt"], converted["images"])}


class POVID(FileDataset):
    """POVID (arXiv 2402.11411): `YiyangAiLab/POVID_preference_data_for_VLLMs`, a JSON list.

    The better answer ends `conversations`, the worse one `rejected_conversations`. The images are COCO's.
    """

    name = "povid"
    detected_by = ("conversations", "rejected_conversations")

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        chosen = turns_of(row.get("conversations"), "conversations")
        rejected = turns_of(row.get("rejected_conversations"), "rejected_conversations")
        images = as_list(row.get("image"))
        return {
            "id": name_of(row, "id"),
            "prompt": _remarked(chosen[:-1], images),
            "images": images,
            "responses": [
                answer_of(chosen[-1], "conversations"),
                answer_of(rejected[-1], "rejected_conversations"),
            ],
            "ranks": [0, 1],
        }


IXC_MARK = "<ImageHere>"


class IXC(FileDataset):
    """IXC-2.5-Reward's rows (arXiv 2501.12368): `conversations_a` is better, `conversations_b` worse."""

    detected_by = ("conversations_a", "conversations_b")

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        conversations = [turns_of(row.get(field), field) for field in ("conversations_a", "conversations_b")]
        prompt, chosen, rejected = split(None, *conversations)
        images = as_list(row.get("image"))
        prompt = [
            {**turn, "content": turn["content"].replace(IXC_MARK, PLACEHOLDER)}
            if isinstance(turn["content"], str)
            else turn
            for turn in prompt
        ]
        return {
            "id": name_of(row, "id"),
            "prompt": _remarked(prompt, images),
            "images": images,
            "responses": [chosen, rejected],
            "ranks": [0, 1],
        }


RANKS_OF_WINNERS = {
    "model_a": [0, 1],
    "model_b": [1, 0],
    "tie": [0, 0],
    "tie (bothbad)": [0, 0],
    "bothbad": [0, 0],
}
"""The ranks that a vote gives; "both are bad" leaves neither response better."""


class WildVisionBattle(BattleDataset):
    """WildVision-Battle (arXiv 2406.11069): votes of people between two models' answers.

    `conversation_a` and `conversation_b` share all turns but the last answer; `winner` is `model_a`,
    `model_b` or a tie. A battle in which an earlier answer differs already is refused.
    """

    name = "wildvision-battle"
    detected_by = ("conversation_a", "conversation_b", "winner")

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        winner = row.get("winner")
        if not isinstance(winner, str) or winner not in RANKS_OF_WINNERS:
            raise DataError(
                f"unknown winner {winner!r:.40}; winners: {', '.join(RANKS_OF_WINNERS)}", field="winner"
            )
        conversations = [turns_of(row.get(field), field) for field in ("conversation_a", "conversation_b")]
        prompt, *responses = split(None, *conversations)
        images = as_list(row.get("image"))
        return {
            "id": name_of(row, "question_id"),
            "prompt": _remarked(prompt, images),
            "images": images,
            "responses": responses,
            "ranks": RANKS_OF_WINNERS[winner],
            "meta": plain(row, "model_a", "model_b", "language", "domain", "judge"),
        }


class OpenRLHF(FileDataset):
    """Rows under the names that OpenRLHF's options give them; texts or conversations.

    Args:
        prompt_key: Column of the prompt; None where both responses begin with it.
        chosen_key: Column of the better response.
        rejected_key: Column of the worse one.
        images_key: Column of the images.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        prompt_key: str | None = None,
        chosen_key: str = "chosen",
        rejected_key: str = "rejected",
        images_key: str = "images",
        source: str | None = None,
        split: Split = None,
        config: str | None = None,
        media_roots: tuple[str, ...] = (),
        media_hosts: tuple[str, ...] = (),
    ) -> None:
        super().__init__(
            path, source=source, split=split, config=config, media_roots=media_roots, media_hosts=media_hosts
        )
        self.keys = {"chosen": chosen_key, "rejected": rejected_key, "images": images_key}
        if prompt_key is not None:
            self.keys["prompt"] = prompt_key

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        try:
            return trl_row(
                {name: row.get(key) for name, key in self.keys.items()} | plain(row, "id", "margin")
            )
        except DataError as error:
            raise DataError(error.reason, field=self.keys.get(error.field or "", error.field)) from error


def _remarked(turns: Sequence[Row], images: Sequence[Any]) -> list[Row]:
    """Take out the marks of images of a conversation, unless there are as many as images."""
    texts = [turn["content"] for turn in turns if isinstance(turn["content"], str)]
    if sum(text.count(PLACEHOLDER) for text in texts) == len(images) or not images:
        return list(turns)
    return [
        {**turn, "content": without_marks(turn["content"], -1)}
        if isinstance(turn["content"], str)
        else dict(turn)
        for turn in turns
    ]
