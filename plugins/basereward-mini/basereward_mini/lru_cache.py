"""A cache in memory of the tensors used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock

from torch import Tensor


class LRUCache:
    """The tensors used last.

    Args:
        capacity: Most bytes.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._entries: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._num_bytes = 0
        self._lock = Lock()

    def get(self, key: Hashable) -> Tensor | None:
        """Return an entry, which makes it the latest."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: Hashable, value: Tensor) -> None:
        """Add a copy of a tensor, and drop the least recently used ones if there are too many bytes."""
        with self._lock:
            if key not in self._entries:
                self._entries[key] = value.clone()  # not a part of a larger tensor, which would be kept, too
                self._num_bytes += value.nbytes
            while self._num_bytes > self.capacity:
                _, dropped = self._entries.popitem(last=False)
                self._num_bytes -= dropped.nbytes

    def clear(self) -> None:
        """Forget all entries."""
        with self._lock:
            self._entries.clear()
            self._num_bytes = 0
