"""Data sets of pairs whose rows hold conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from basereward.data.dataset import FileDataset
from basereward.data.fields import (
    answer_of,
    as_list,
    name_of,
    plain,
    single_column,
    turn_of,
    turns_of,
    without_marks,
)
from basereward.data.pair_layouts import COMMON_COLUMNS, common_fields
from basereward.data.published.battles import BattleDataset
from basereward.data.reading.paths import Split
from basereward.data.reading.row import Row
from basereward.data.trl import split, trl_row
from basereward.errors import DataError
from basereward.message import PLACEHOLDER, is_filled


class ShareGPT(FileDataset):
    """Pairs of LLaMA-Factory and ms-swift: `conversations` or `messages`, and what continues them.

    - LLaMA-Factory: `conversations` of `{"from", "value"}`, `chosen` and `rejected` as one such turn or a
      text, `system`, `tools`, `images`, `videos`. axolotl: `messages`, likewise.
    - ms-swift: `messages` of `{"role", "content"}` whose last is the better answer, and `rejected_response`;
      or `rejected_messages`, the whole conversation again. `rejected_images` must be the images of
      `images`: a response has no images of its own.

    The texts of speakers `function_call` and `tool_call` are calls of tools, for the chat template.
    """

    published_responses = 2
    detected_by = ("conversations", "chosen", "rejected")
    also_detected_by = (
        ("messages", "chosen", "rejected"),
        ("messages", "rejected_response"),
        ("messages", "rejected_messages"),
        ("conversations", "rejected_response"),
    )
    columns: Mapping[str, str] = {
        "conversations": "the conversation before the answer",
        "messages": "instead of conversations; with rejected_response it ends with the better answer",
        "system": "the system message",
        "chosen": "the better answer, a text or a turn",
        "rejected": "the worse answer, a text or a turn",
        "rejected_response": "the worse answer to the conversation that ends with the better one",
        "rejected_messages": "the whole conversation with the worse answer",
        "rejected_images": "must be the images of images",
        **COMMON_COLUMNS,
    }

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        fields = common_fields(row)
        images = fields["images"]
        if is_filled(row.get("rejected_images")) and as_list(row["rejected_images"]) != images:
            raise DataError(
                "differ from images, but a response has no images of its own", field="rejected_images"
            )
        return fields | self.prompt_and_responses(row)

    def prompt_and_responses(self, row: Row) -> Row:
        """Return the conversation before the answers, and both of them."""
        field = single_column(row, "conversations", "messages")
        turns = turns_of(row.get(field), field)
        if row.get("system"):
            if turns[0]["role"] == "system":
                raise DataError("the conversation begins with a system message, too", field="system")
            turns = [turn_of(row["system"], "system", "system"), *turns]
        worse = single_column(row, "rejected", "rejected_response", "rejected_messages")
        if worse != "rejected" and row.get("chosen") is not None:
            raise DataError(f"the better answer is in {field} where there is {worse}", field="chosen")
        if worse == "rejected_messages":
            prompt, chosen, rejected = split(None, turns, turns_of(row[worse], worse))
        elif worse == "rejected_response":
            prompt, chosen = turns[:-1], answer_of(turns[-1], field)
            rejected = answer_of(row[worse], worse)
        else:
            prompt, chosen = turns, answer_of(row.get("chosen"), "chosen")
            rejected = answer_of(row["rejected"], "rejected")
        if not prompt:
            raise DataError("there is no turn before the answer", field=field)
        if prompt[-1]["role"] == "assistant" and "tool_calls" not in prompt[-1]:
            raise DataError("the turn before the answer is the assistant's, too", field=field)
        return {"prompt": prompt, "responses": [chosen, rejected]}


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
    published_responses = 2
    detected_by = ("conversations", "rejected_conversations")
    columns: Mapping[str, str] = {
        "conversations": "the question and the better answer",
        "rejected_conversations": "the question and the worse answer",
        "image": "the image",
        "id": "names the row",
    }

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

    published_responses = 2
    detected_by = ("conversations_a", "conversations_b")
    columns: Mapping[str, str] = {
        "conversations_a": "the conversation with the better answer",
        "conversations_b": "the conversation with the worse answer",
        "image": "the images, one or a list",
        "id": "names the row",
    }

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
    columns: Mapping[str, str] = {
        "conversation_a": "the conversation with one model's answer",
        "conversation_b": "the conversation with the other's",
        "winner": "the vote",
        "image": "the image",
        "question_id": "names the row",
        "model_a": "the first model",
        "model_b": "the second model",
        "turn": "the number of turns",
        "anony": "whether the voter saw the models' names",
        "tstamp": "the time of the vote",
    }

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
        self.keys = {"chosen": chosen_key, "rejected": rejected_key, "images": images_key}
        if prompt_key is not None:
            self.keys["prompt"] = prompt_key
        others = {name: text for name, text in COMMON_COLUMNS.items() if name not in ("images", "image")}
        self.columns = {key: f"as trl's {name}" for name, key in self.keys.items()} | others

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        try:
            return trl_row(
                {name: row.get(key) for name, key in self.keys.items()}
                | {name: row[name] for name in COMMON_COLUMNS if name in row and name in self.columns}
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
