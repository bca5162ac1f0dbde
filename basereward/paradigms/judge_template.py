"""Judge templates: how a question and its responses are put to a model that is to judge them.

A template is a TOML file with `answer`, what is asked for, and `text`, in which {question} stands before
{response}, or before {response_1} and {response_2}. Ours lie in `judge_templates/`; those of a plugin lie in
a directory of that name beside its module, and are called `plugin/name`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any, Literal, get_args

from basereward.config.conversion import did_you_mean
from basereward.config.files import read_toml
from basereward.errors import ConfigError, DataError
from basereward.message import PLACEHOLDER, VIDEO_PLACEHOLDER, Message, Part
from basereward.plugins.plugin_manager import current_manager

Answer = Literal["critique", "verdict", "reasoned"]

DIRECTORY = "judge_templates"
SLOT = re.compile(r"\{(question|response|response_1|response_2)\}")
SLOTS: dict[str, tuple[str, ...]] = {
    "critique": ("question", "response"),
    "verdict": ("question", "response_1", "response_2"),
    "reasoned": ("question", "response_1", "response_2"),
}
SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


@dataclass(frozen=True)
class JudgeTemplate:
    """A question about responses.

    Args:
        name: What run files call it.
        answer: What is asked for: a critique of one response; a verdict on two, in one token; or a verdict
            after reasoning.
        text: With a slot for the question and one for each response.
    """

    name: str
    answer: Answer
    text: str

    @classmethod
    def load(cls, name: str) -> JudgeTemplate:
        """Return the template of a name, `name` for ours or `plugin/name`.

        Raises:
            ConfigError: When there is none, or its file is wrong.
        """
        files_by_name = _templates()
        if name not in files_by_name:
            hint = did_you_mean(name, list(files_by_name)) or ";"
            raise ConfigError(f"unknown judge template {name!r}{hint} templates: {', '.join(files_by_name)}")
        try:
            with as_file(files_by_name[name]) as path:
                table = read_toml(path)
        except ConfigError as error:
            raise ConfigError(f"judge template {name!r}: {error}") from error
        return cls._of(name, table)

    @classmethod
    def _of(cls, name: str, table: dict[str, Any]) -> JudgeTemplate:
        answer: Any = table.get("answer")
        text = table.get("text")
        if set(table) != {"answer", "text"} or answer not in get_args(Answer) or not isinstance(text, str):
            raise ConfigError(
                f"judge template {name!r}: needs a text, and answer, one of {', '.join(get_args(Answer))}; "
                f"the file has {', '.join(table) or 'nothing'}"
            )
        slots = tuple(SLOT.findall(text))
        if slots != SLOTS[answer]:
            needed = ", ".join(f"{{{slot}}}" for slot in SLOTS[answer])
            given = ", ".join(f"{{{slot}}}" for slot in slots) or "none"
            # The question first, or its images could not be read once for all responses.
            raise ConfigError(
                f"judge template {name!r}: its text needs {needed} in this order; it has {given}"
            )
        return cls(name, answer, text.strip() + "\n")

    @property
    def digest(self) -> str:
        """SHA-256 of what is asked, which verdicts depend on as much as on weights."""
        return hashlib.sha256(f"{self.answer}\n{self.text}".encode()).hexdigest()

    def messages(self, prompt: Sequence[Message], responses: Sequence[str]) -> list[Message]:
        """Return what a model is asked: one message, with the prompt's images where the prompt has them.

        Args:
            prompt: The conversation that is answered.
            responses: As many as there are slots.

        Raises:
            DataError: When the conversation has tools or calls of them, which a question's text can't show.
        """
        for message in prompt:
            if message.given:
                raise DataError(f"a judge isn't shown {message.given_names} of a message", field="prompt")
        values: dict[str, list[Part]] = {"question": _question(prompt)}
        slots = [slot for slot in SLOTS[self.answer] if slot != "question"]
        values |= {slot: [response] for slot, response in zip(slots, responses, strict=True)}
        parts: list[Part] = []
        for number, piece in enumerate(SLOT.split(self.text)):
            parts += values[piece] if number % 2 else [piece]
        # Each a part of its own, so that no response's tokens run into what stands beside them.
        return [Message("user", tuple(cut for part in parts for cut in _cut(part)))]


def _templates() -> dict[str, Any]:
    """Return the files of all templates by the names that run files call them."""
    files_by_name = {}
    for plugin in current_manager().loaded:
        module = plugin.target.partition(":")[0]
        is_ours = plugin.name == "basereward"
        package = __package__ if is_ours else module
        try:
            directory = files(package) / DIRECTORY
        except (TypeError, ModuleNotFoundError):
            continue  # a module that is no package, or one made in a notebook, has no files
        if not directory.is_dir():
            continue
        for file in sorted(directory.iterdir(), key=lambda file: file.name):
            if file.name.endswith(".toml"):
                name = file.name.removesuffix(".toml")
                files_by_name[name if is_ours else f"{plugin.name}/{name}"] = file
    return files_by_name


def _question(prompt: Sequence[Message]) -> list[Part]:
    """Return the conversation: its only turn as it is, or each turn after the name of who speaks."""
    if len(prompt) == 1:
        return list(prompt[0].content)
    parts: list[Part] = []
    for message in prompt:
        parts += [f"{SPEAKERS[message.role]}: ", *message.content, "\n"]
    return parts


def _cut(part: Part) -> list[Part]:
    """Split texts inside literal image placeholders, so that these stay text."""
    if not isinstance(part, str):
        return [part]
    pieces = re.split(f"(?<=<)(?={PLACEHOLDER[1:]}|{VIDEO_PLACEHOLDER[1:]})", part)
    return [piece for piece in pieces if piece]
