"""Who may ask: anyone on this machine, or whoever has a key."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping, Sequence

from basereward.errors import ConfigError
from basereward.serving.problems import Problem


class Access:
    """Checks requests' headers.

    Args:
        keys: Each of which lets in; without any, requests must name this machine, so that no page of a
            browser on it can get here under a name of its own.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        for key in keys:
            if not key.isascii() or not key.isprintable() or len(key) < 8 or " " in key:
                raise ConfigError("an API key has 8 or more printable ASCII characters and no space")
        self._keys = [key.encode() for key in keys]

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise unless the request may ask.

        Raises:
            Problem: When it may not.
        """
        if not self._keys:
            if not is_loopback(_name_of(headers.get("host", ""))):
                raise Problem("host_not_allowed")
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        sent = given.strip().encode("utf-8", "replace")
        # Each is compared in full, and in a time that doesn't tell how much of it is right.
        matches = [hmac.compare_digest(sent, key) for key in self._keys]
        if scheme.lower() != "bearer" or not any(matches):
            raise Problem("key_missing_or_wrong")


def check_address(host: str, keys: Sequence[str]) -> None:
    """Raise when others could reach the server and it asks for no key.

    Raises:
        ConfigError: Saying what to write.
    """
    if not keys and not is_loopback(host):
        raise ConfigError(
            f"--host {host} lets other machines in; give a key that they must send, with --api-key-file FILE"
        )


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _name_of(host: str) -> str:
    """Return a Host header's name, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
