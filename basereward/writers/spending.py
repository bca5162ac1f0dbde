"""Tokens, seconds and price of what an endpoint has written, and a limit of the price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from basereward.errors import ConfigError
from basereward.writers.request import Completion, Request

CHARACTERS_A_TOKEN = 3.0
TOKENS_AN_IMAGE = 1500
"""For estimates: few tokenizers make more tokens of text, few models of an image."""


@dataclass
class Spending:
    """The account of one endpoint.

    Args:
        prompt_price: Of a million tokens that are read, in the provider's currency.
        price: Of a million tokens that are written.
        max_cost: The most that may be spent; None for no limit.
    """

    prompt_price: float
    price: float
    max_cost: float | None
    num_prompt_tokens: int = 0
    num_tokens: int = 0
    num_answers: int = 0
    seconds: float = 0.0
    reserved: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prompt_price", "price"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is a price of a million tokens >= 0, not {getattr(self, name)}")
        if self.max_cost is not None and not (self.prompt_price or self.price):
            raise ConfigError(
                "max_cost needs the prices of a million tokens: set prompt_price (read) and price (written)"
            )

    @property
    def cost(self) -> float:
        """The price of all that was answered, by the tokens that the server has counted."""
        return self.cost_of(self.num_prompt_tokens, self.num_tokens)

    def cost_of(self, num_prompt_tokens: float, num_tokens: float) -> float:
        """Return the price of tokens."""
        return (num_prompt_tokens * self.prompt_price + num_tokens * self.price) / 1e6

    def reserve(self, request: Request) -> float | None:
        """Return the most that a request may cost and set it aside; None where the limit leaves no room."""
        most = self.cost_of(*estimated_tokens(request))
        if self.max_cost is not None and self.cost + self.reserved + most > self.max_cost:
            return None
        self.reserved += most
        return most

    def settle(self, reserved: float, completion: Completion | None, seconds: float) -> None:
        """Take a request's price into the account, in place of what was set aside for it."""
        self.reserved -= reserved
        self.seconds += seconds
        if completion is not None:
            self.num_answers += 1
            self.num_prompt_tokens += completion.num_prompt_tokens
            self.num_tokens += completion.num_tokens

    def statistics(self) -> Mapping[str, float]:
        """Return what was spent, by name."""
        values: dict[str, float] = {
            "prompt_tokens": self.num_prompt_tokens,
            "tokens": self.num_tokens,
            "request_seconds": self.seconds,
        }
        return {**values, "cost": self.cost} if self.prompt_price or self.price else values


def estimated_tokens(request: Request) -> tuple[float, float]:
    """Return about how many tokens a request has to read, and how many it may write."""
    num_characters = sum(len(message.text) for message in request.messages) + len(request.beginning)
    num_characters += sum(map(len, request.options))
    num_images = sum(len(message.images) for message in request.messages)
    num_prompt_tokens = num_characters / CHARACTERS_A_TOKEN + num_images * TOKENS_AN_IMAGE
    return num_prompt_tokens, request.max_tokens
