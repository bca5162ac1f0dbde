"""The base of backbones: comparisons to trees, trees to a forest, a forest to hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from torch import nn

from basereward import protocols
from basereward.comparison import Comparison
from basereward.errors import ConfigError, TooLongError
from basereward.forest.forest import Forest, Tree, pack


class Backbone(protocols.Backbone, nn.Module):
    """Base of backbones; a subclass gives `dim`, `encode`, `forward`, `parts` and `save`.

    The constructor's `model` names a local directory or a model hub's id. A directory that `save` wrote,
    given as `model` with the same options, must give the same hidden states bit for bit.
    """

    def blocks(self) -> list[nn.Module]:
        """Return the repeated blocks, such as decoder layers, which are sharded and recomputed one by one.

        These are the elements of the outermost `nn.ModuleList`s whose modules are of one class. None is
        within another, and they stand in the order of registration, which is that of the forward pass.
        """
        blocks: list[nn.Module] = []

        def visit(module: nn.Module) -> None:
            for child in module.children():
                if isinstance(child, nn.ModuleList) and len(set(map(type, child))) == 1:
                    blocks.extend(child)
                else:
                    visit(child)

        visit(self)
        return blocks

    def pack(self, trees: Sequence[Tree], *, shared: bool = True, row_tokens: float | None = None) -> Forest:
        """Pack trees into a forest on the CPU; see `basereward.forest.pack`."""
        return pack(trees, pad=self.pad, shared=shared and self.shares, row_tokens=row_tokens)

    def forest(self, comparisons: Sequence[Comparison], *, shared: bool = True) -> Forest:
        """Encode and pack comparisons."""
        return self.pack([self.encode(comparison) for comparison in comparisons], shared=shared)


_refuses_long: ContextVar[bool] = ContextVar("refuses_long", default=False)


@contextmanager
def refuse_long_responses() -> Iterator[None]:
    """Refuse responses over `max_tokens` in this thread, even where a backbone's `on_long` would cut them."""
    token = _refuses_long.set(True)
    try:
        yield
    finally:
        _refuses_long.reset(token)


class TokenLimit:
    """The most tokens of a prompt and one of its responses together, and whether longer responses are cut.

    Args:
        max_tokens: The most tokens; None for no limit.
        on_long: Whether a longer response is refused or cut before its end token.
    """

    def __init__(self, max_tokens: int | None, on_long: Literal["refuse", "truncate"]) -> None:
        if max_tokens is not None and max_tokens < 1:
            raise ConfigError(f"max_tokens is a number of tokens >= 1, not {max_tokens}")
        self.max_tokens = max_tokens
        self.on_long = on_long

    def fit(
        self, prompt: list[int], responses: list[list[int]], end: Sequence[int] = ()
    ) -> tuple[list[list[int]], int]:
        """Return the responses, cut where they are too long and may be, and the number of those cut.

        Args:
            prompt: Its tokens.
            responses: The tokens of each.
            end: The tokens that responses end with, which are kept; of others the last is.

        Raises:
            TooLongError: When one is too long and may not be cut, or nothing would be left of it.
        """
        if self.max_tokens is None or len(prompt) + max(map(len, responses)) <= self.max_tokens:
            return responses, 0
        max_response = self.max_tokens - len(prompt)
        fitted = []
        for number, response in enumerate(responses):
            num_end = len(end) if end and response[-len(end) :] == list(end) else 1
            if len(response) <= max_response:
                fitted.append(response)
            elif self.on_long == "truncate" and not _refuses_long.get() and max_response > num_end:
                fitted.append([*response[: max_response - num_end], *response[-num_end:]])
            else:
                hint = (
                    "the prompt leaves no room"
                    if max_response <= num_end
                    else 'on_long = "truncate" cuts the response'
                )
                raise TooLongError(
                    f"prompt and response are {len(prompt)} + {len(response)} tokens; "
                    f"max_tokens is {self.max_tokens} ({hint})",
                    field=f"responses[{number}]",
                )
        return fitted, sum(len(fit) < len(whole) for fit, whole in zip(fitted, responses, strict=True))
