"""Access control: requests from this machine only, or with a key."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping, Sequence

from basereward.errors import ConfigError
from basereward.serving.problems import Problem


class Access:
    """Checks the headers of requests.

    Args:
        keys: The valid keys. Without any, the host of requests must be this machine, so that no web page in
            its browser can reach the server by DNS rebinding.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        for key in keys:
            if not key.isascii() or not key.isprintable() or len(key) < 8 or " " in key:
                raise ConfigError("an API key has 8 or more printable ASCII characters and no space")
        self._keys = [key.encode() for key in keys]

    def check(self, headers: Mapping[str, str]) -> None:
        """Check the key, or without keys the host.

        Raises:
            Problem: When the key is missing or wrong, or the host is another machine.
        """
        if not self._keys:
            if not is_loopback(_name_of(headers.get("host", ""))):
                raise Problem("host_not_allowed")
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        sent = given.strip().encode("utf-8", "replace")
        # In constant time, and with every key, so that the time tells nothing of a key.
        matches = [hmac.compare_digest(sent, key) for key in self._keys]
        if scheme.lower() != "bearer" or not any(matches):
            raise Problem("key_missing_or_wrong")


def check_address(host: str, keys: Sequence[str]) -> None:
    """Require keys where other machines can reach the server.

    Raises:
        ConfigError: When there are none.
    """
    if not keys and not is_loopback(host):
        raise ConfigError(
            f"--host {host} lets other machines in; give a key that they must send, with --api-key-file FILE"
        )


def is_loopback(host: str) -> bool:
    """Return whether a host name or an address is a loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _name_of(host: str) -> str:
    """Return a Host header's name, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
