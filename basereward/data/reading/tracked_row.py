"""A row that knows which of its columns have been read."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any


class TrackedRow(dict[str, Any]):
    """A row that remembers which columns were asked for; whoever goes through all of it reads all of it."""

    def __init__(self, row: dict[str, Any]) -> None:
        super().__init__(row)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a column's value."""
        self.read.add(name)
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        """Take a column out."""
        self.read.add(name)
        return super().pop(name, *default)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        """Return the columns, all of which count as read."""
        self._read_all()
        return super().keys()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """Return the values, all of which count as read."""
        self._read_all()
        return super().values()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """Return columns and values, all of which count as read."""
        self._read_all()
        return super().items()

    def copy(self) -> dict[str, Any]:
        """Return the row as a plain one, all of which counts as read."""
        self._read_all()
        return dict(super().items())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def _read_all(self) -> None:
        self.read.update(super().keys())
