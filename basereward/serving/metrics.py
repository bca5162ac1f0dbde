"""Metrics of a server for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (64, 256, 1024, 4096, 8192, 16384, 32768, 65536)


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counts: dict[str, Any] = {"namespace": "basereward", "registry": self.registry}
        self.requests = Counter("requests", "Requests answered.", ("path", "status"), **counts)
        self.problems = Counter("problems", "Requests and items refused or failed.", ("code",), **counts)
        self.responses = Counter("responses", "Responses scored.", **counts)
        self.dropped = Counter("dropped", "Prompts whose client left or that were too late.", **counts)
        self.joined = Counter("joined", "Prompts that went into the tree of another request.", **counts)
        self.answering = Gauge("answering", "Requests that are being answered.", **counts)
        self.connections = Gauge("connections", "Connections.", **counts)
        self.closed_connections = Counter(
            "closed_connections",
            "Connections closed or refused before their client did.",
            ("reason",),
            **counts,
        )
        self.prepared_bytes = Gauge("prepared_bytes", "Bytes reserved for images.", **counts)
        self.waiting_tokens = Gauge("waiting_tokens", "Tokens that wait for the device.", **counts)
        self.answer_seconds = Histogram(
            "answer_seconds", "From a request's first byte to its answer.", buckets=SECONDS, **counts
        )
        self.wait_seconds = Histogram("wait_seconds", "Waiting for the device.", buckets=SECONDS, **counts)
        self.pass_seconds = Histogram("pass_seconds", "A forward pass.", buckets=SECONDS, **counts)
        self.batch_items = Histogram("batch_items", "Prompts of a pass.", buckets=COUNTS, **counts)
        self.batch_tokens = Histogram("batch_tokens", "Tokens of a pass.", buckets=TOKENS, **counts)

    def saw_batch(self, *, num_items: int, num_tokens: int, waits: Sequence[float], seconds: float) -> None:
        """Count a forward pass, and the seconds that each prompt waited for it."""
        self.batch_items.observe(num_items)
        self.batch_tokens.observe(num_tokens)
        self.pass_seconds.observe(seconds)
        for wait in waits:
            self.wait_seconds.observe(wait)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return bytes(generate_latest(self.registry))
