"""A content-addressed cache of completions on disk, by which a killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from basereward.errors import ConfigError
from basereward.storage.atomic import write_text
from basereward.writers.request import Completion

SCHEMA_VERSION = 1

FIELDS = tuple(field.name for field in fields(Completion) if field.name != "reason")
"""The fields of a completion in an entry; one that failed has none."""


class CompletionCache:
    """A directory with a file for each completion, named by the digest of all that the text depends on.

    Args:
        directory: Where; it is made.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cache {directory} can't be made: {error.strerror}") from error
        self.num_damaged = 0

    def get(self, key: str) -> Completion | None:
        """Return a completion; None where there is none, or its entry is damaged and is to be replaced."""
        try:
            text = self._path(key).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError):
            self.num_damaged += 1
            return None
        try:
            entry = json.loads(text)
            content = entry["completion"]
            if entry["digest"] == _digest(key, content) and tuple(content) == FIELDS:
                return Completion(**content)
        except (ValueError, TypeError, KeyError):
            pass
        self.num_damaged += 1
        return None

    def put(self, key: str, completion: Completion) -> None:
        """Write a completion, which is there whole or not at all whenever the process is killed."""
        values = {name: getattr(completion, name) for name in FIELDS}
        content = {**values, "log_probabilities": dict(completion.log_probabilities)}
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        entry = {"schema_version": SCHEMA_VERSION, "completion": content, "digest": _digest(key, content)}
        write_text(path, json.dumps(entry) + "\n", errors="replace")

    def _path(self, key: str) -> Path:
        return self.directory / key[:2] / f"{key}.json"


def key_of(*parts: Any) -> str:
    """Return the digest of all that a text depends on; JSON can hold the parts."""
    text = json.dumps([SCHEMA_VERSION, *parts], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _digest(key: str, content: Any) -> str:
    return hashlib.sha256(f"{key} {json.dumps(content, sort_keys=True)}".encode()).hexdigest()
