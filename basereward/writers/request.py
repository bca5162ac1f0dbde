"""A request for a text, and the text that was written: the contract of writers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal

from basereward.message import Message, identity_of

Ending = Literal["finished", "cut", "failed"]
"""Whether the model ended a text itself, it was cut at its longest, or there is none."""

NOTHING: Final[Mapping[str, float]] = MappingProxyType({})


@dataclass(frozen=True)
class Request:
    """A request for the next turn of the assistant.

    Args:
        messages: The conversation, with its images.
        beginning: The text that the turn begins with; it is part of what is written.
        max_tokens: The longest text, without the beginning.
        temperature: 0 for always the likeliest token, else what the logits are divided by.
        seed: Of the random numbers; only where `temperature` is above 0.
        choices: Texts of which one is asked for, each beginning with a token of its own, and best of one
            token. A writer that can gives the log-probability of each as the first token; another one writes
            a text.
        options: For each choice the response that it stands for, where the messages are the prompt of all;
            only of a writer that `takes_options`.
        group: Requests of one group that stand together begin alike, so that a writer may read what they
            share, images included, once; None for a request by itself.
    """

    messages: Sequence[Message]
    beginning: str = ""
    max_tokens: int = 1024
    temperature: float = 0.0
    seed: int = 0
    choices: Sequence[str] = ()
    options: Sequence[str] = ()
    group: Hashable = None

    def identity(self) -> tuple[Hashable, ...]:
        """Return all that a text depends on, images by their digests; JSON can hold it.

        Raises:
            DataError: When an image can't be read.
        """
        return (
            identity_of(self.messages),
            self.beginning,
            self.max_tokens,
            self.temperature,
            self.seed if self.temperature else 0,
            tuple(self.choices),
            *([tuple(self.options)] if self.options else []),
        )

    @property
    def has_images(self) -> bool:
        """Whether a message has an image or a video."""
        return any(message.images or message.videos for message in self.messages)


@dataclass(frozen=True)
class Completion:
    """A text that was written, or the reason why there is none.

    Args:
        text: The whole turn, its beginning included; empty where it failed.
        ending: How it ended.
        reason: Why there is none; empty else.
        log_probabilities: Of each of the request's choices, as the first token; empty where there were no
            choices or the writer can't tell.
        num_prompt_tokens: Tokens that were read, where the writer counts them.
        num_tokens: Tokens that were written, likewise.
        model: The model that wrote, as its server says; empty where nobody says.
    """

    text: str = ""
    ending: Ending = "finished"
    reason: str = ""
    log_probabilities: Mapping[str, float] = field(default_factory=lambda: NOTHING)
    num_prompt_tokens: int = 0
    num_tokens: int = 0
    model: str = ""

    @classmethod
    def failed(cls, reason: str) -> Completion:
        """Return the absence of a text, with its reason."""
        return cls(ending="failed", reason=reason)

    def without_counts(self) -> Completion:
        """Return the text of an answer that was paid for before."""
        return replace(self, num_prompt_tokens=0, num_tokens=0)
