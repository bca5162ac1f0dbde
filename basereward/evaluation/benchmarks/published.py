"""Published rows of the benchmarks, corrected where the printed number contradicts itself."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

FILE = "published.toml"


@dataclass(frozen=True, slots=True)
class PublishedScores:
    """Published scores of one model.

    Attributes:
        model: Its name in print.
        source: The publication.
        scores: Percent by the names of the benchmark's own metrics, so that a variant has its own name.
        printed: The printed number of each score that is corrected here.
        note: A remark on the row.
    """

    model: str
    source: str
    scores: Mapping[str, float]
    printed: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the row for a JSON report."""
        return {
            "model": self.model,
            "source": self.source,
            "scores": dict(self.scores),
            "printed": dict(self.printed),
            "note": self.note,
        }


def published_of(benchmark: str) -> list[PublishedScores]:
    """Return the published rows of a benchmark; none for one that the file doesn't have."""
    text = resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    rows = []
    for table in tomllib.loads(text).get(benchmark, ()):
        for model, *values in table["rows"]:
            scores = {
                name: value for name, value in zip(table["columns"], values, strict=True) if value != ""
            }
            rows.append(
                PublishedScores(
                    model,
                    table["source"],
                    scores,
                    table.get("printed", {}).get(model, {}),
                    table.get("notes", {}).get(model, table.get("note", "")),
                )
            )
    return rows
