"""Writers: requests in, texts in the same order out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward.protocols import Writer
from basereward.writers.request import Completion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from basereward.writers.request import Request


class Canned(Writer):
    """Writes one text whatever is asked: something to put in an engine's place while trying things out.

    Args:
        text: The text.
    """

    reads_images = False

    def __init__(self, *, text: str = "<think>They are alike.</think><answer>1</answer>") -> None:
        self.text = text

    def write(self, requests: Sequence[Request]) -> Sequence[Completion]:
        """Return a text for each request, in their order."""
        return [
            Completion.failed("it sees no images")
            if each.has_images
            else Completion(each.beginning + self.text)
            for each in requests
        ]
