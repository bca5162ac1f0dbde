"""The limits of a server, each an option of `basereward serve`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields

from basereward.errors import ConfigError
from basereward.media.limits import MAX_PIXELS


def _bound(default: int, doc: str) -> int:
    bound: int = field(default=default, metadata={"doc": doc})
    return bound


@dataclass(frozen=True)
class Limits:
    """Bounds on requests, on the queue, and on a forward pass; whole numbers >= 1.

    Raises:
        ConfigError: When one is less than 1.
    """

    body_bytes: int = _bound(32 * 2**20, "bytes of a request's body")
    waiting_bytes: int = _bound(512 * 2**20, "bytes of all bodies that are being answered")
    values: int = _bound(100_000, "JSON values of a request's body")
    items: int = _bound(64, "prompts of a request")
    responses: int = _bound(256, "responses to a prompt")
    messages: int = _bound(512, "messages of a prompt, and pieces of their contents")
    images: int = _bound(16, "images of a prompt")
    request_images: int = _bound(256, "images of a request")
    image_pixels: int = _bound(MAX_PIXELS, "pixels of an image")
    request_pixels: int = _bound(4 * MAX_PIXELS, "pixels of all images of a request")
    characters: int = _bound(1_000_000, "characters of a prompt and its responses")
    request_characters: int = _bound(4_000_000, "characters of all prompts and responses of a request")
    tokens: int = _bound(65_536, "tokens of a prompt and its responses")
    prepared_bytes: int = _bound(4 * 2**30, "bytes of images that are prepared or wait for the device")
    requests: int = _bound(1024, "requests that are being answered; more get 429")
    waiting_tokens: int = _bound(2_000_000, "tokens that wait for the device; more get 429")
    seconds: int = _bound(120, "seconds from a request's first byte to its answer; later ones get 504")
    header_seconds: int = _bound(
        20, "seconds from a connection or a request's first byte to its headers' end"
    )
    reading_seconds: int = _bound(120, "seconds that a client takes to read an answer")
    connections: int = _bound(2048, "connections; for one more, the one longest without a request is closed")
    batch_items: int = _bound(256, "prompts of a forward pass")
    batch_tokens: int = _bound(16_384, "places for tokens of a forward pass; a larger prompt has its own")
    batch_patches: int = _bound(65_536, "patches of images of a forward pass")

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ConfigError(f"--max-{name.replace('_', '-')} is a number >= 1, not {value}")

    @staticmethod
    def documented() -> dict[str, tuple[int, str]]:
        """Return the default and the description of each bound."""
        return {bound.name: (int(str(bound.default)), bound.metadata["doc"]) for bound in fields(Limits)}
