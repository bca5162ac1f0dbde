"""Judge templates: how a question and its responses are put to a model that is to judge them.

A template is a TOML file with `answer`, what is asked for, and `text`, in which {question} stands before
{response}, or before {response_1} and {response_2}; one of ratings has a scale (`RatingScale`) too, and one
of a rubric asks with an {item}; {responses} are all of a comparison. Ours lie in `judge_templates/`; those of
a plugin lie in a directory of that name beside its module, and are called `plugin/name`.
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.resources import as_file, files
from typing import Any, Literal, get_args

from basereward.config.conversion import did_you_mean
from basereward.config.files import read_toml
from basereward.errors import ConfigError, DataError
from basereward.message import PLACEHOLDER, VIDEO_PLACEHOLDER, Message, Part
from basereward.paradigms.rating_scale import RatingScale
from basereward.paradigms.rubric import FORM, Item, items_of
from basereward.plugins.plugin_manager import current_manager

Answer = Literal["critique", "verdict", "reasoned", "rating", "rubric", "criteria", "choice"]

DIRECTORY = "judge_templates"
SLOT = re.compile(r"\{(question|response|response_1|response_2|item|responses)\}")
SLOTS: dict[str, tuple[str, ...]] = {
    "critique": ("question", "response"),
    "verdict": ("question", "response_1", "response_2"),
    "reasoned": ("question", "response_1", "response_2"),
    "rating": ("question", "response"),
    "rubric": ("question", "response", "item"),
    "criteria": ("question",),
    "choice": ("question", "responses"),
}
LABELS = tuple(string.ascii_uppercase)
"""What the responses are called that are shown together, in their order."""
YES_OR_NO = {"levels": ["No", "Yes"], "values": [0, 1]}
OWN_KEYS = {
    "rating": frozenset(field.name for field in fields(RatingScale)),
    "rubric": frozenset({"items", "levels"}),
}
SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


@dataclass(frozen=True)
class JudgeTemplate:
    """A question about responses.

    Args:
        name: What run files call it.
        answer: What is asked for: a critique of one response; a verdict on two, in one token; a verdict
            after reasoning; a rating of one response; yes or no to an item of a rubric; the criteria of which
            a rubric is made; or the best of all responses.
        text: With a slot for the question and one for each response.
        scale: Of a rating, or of yes and no; None for other answers.
        items: Of a rubric; a comparison's own take their place.
    """

    name: str
    answer: Answer
    text: str
    scale: RatingScale | None = None
    items: tuple[Item, ...] = ()

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

    @property
    def reward_unit(self) -> str:
        """The unit of the rewards that ratings or items of a rubric make; empty for other answers."""
        if self.answer == "rubric":
            return "rubric shares, at most 1"
        if self.scale is None:
            return ""
        low, *_, high = self.scale.bounds or self.scale.values
        return f"ratings, {low:g} to {high:g}"

    @classmethod
    def _of(cls, name: str, table: dict[str, Any]) -> JudgeTemplate:
        answer: Any = table.get("answer")
        text = table.get("text")
        keys = set(table) - OWN_KEYS.get(answer if isinstance(answer, str) else "", frozenset())
        if keys != {"answer", "text"} or answer not in get_args(Answer) or not isinstance(text, str):
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
        items: tuple[Item, ...] | None = ()
        try:
            scale = None
            if answer == "rating":
                scale = RatingScale.of(table)
            elif answer == "rubric":
                scale = RatingScale.of(YES_OR_NO | {key: table[key] for key in ("levels",) if key in table})
                items = items_of(table["items"]) if "items" in table else ()
        except ConfigError as error:
            raise ConfigError(f"judge template {name!r}: {error}") from error
        if items is None:
            raise ConfigError(f"judge template {name!r}: items are {FORM}, not {table['items']!r:.80}")
        return cls(name, answer, text.strip() + "\n", scale, items)

    @property
    def digest(self) -> str:
        """SHA-256 of what is asked, which verdicts depend on as much as on weights."""
        asked = f"{self.answer}\n{self.text}"
        if self.scale is not None:
            asked += json.dumps([asdict(self.scale), self.items], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()

    def messages(
        self, prompt: Sequence[Message], responses: Sequence[str], item: str | None = None
    ) -> list[Message]:
        """Return what a model is asked: one message, with the prompt's images where the prompt has them.

        Args:
            prompt: The conversation that is answered.
            responses: As many as there are slots, or all of a comparison, at most as many as `LABELS`.
            item: Of a rubric.

        Raises:
            DataError: When the conversation has tools or calls of them, which a question's text can't show.
        """
        for message in prompt:
            if message.given:
                raise DataError(f"a judge isn't shown {message.given_names} of a message", field="prompt")
        values: dict[str, list[Part]] = {"question": _question(prompt)}
        slots = [slot for slot in SLOTS[self.answer] if slot != "question"]
        if self.answer == "choice":
            named = zip(LABELS, responses, strict=False)
            values["responses"] = [
                part for label, text in named for part in (f"[Response {label}]\n", text, "\n\n")
            ]
        else:
            shown = [*responses, *([] if item is None else [item])]
            values |= {slot: [text] for slot, text in zip(slots, shown, strict=True)}
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
