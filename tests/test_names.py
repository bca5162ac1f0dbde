"""Identifiers are the field's terms: invented words that were replaced once stay out of the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "basereward"
FILES = sorted(PACKAGE.rglob("*.py"))

BANNED = {
    # invented: the field's term
    "Batched": "PaddedBatches",
    "Budget": "MicroBatchLimits",
    "Conducted": "StudyRun",
    "Course": "RunHistory",
    "Dialect": "Api",
    "HeldOut": "Validator",
    "KeptEnds": "EndStateCache",
    "KeptFeatures": "ImageFeatureCache",
    "Learner": "TrainedModel",
    "Members": "EnsembleMembers",
    "Measured": "MemberStatistics",
    "Mismatch": "ValidationError",
    "Piece": "AttentionBlock",
    "Ranks": "ProcessGroup",
    "RowsInMemory": "MapRows",
    "ScaleWatch": "ScaleMonitor",
    "StreamScorer": "BatchScorer",
    "StreamedRows": "IterableRows",
    "VAIN": "LEFTOVERS",
    "Written": "Generation",
    "add_up": "accumulate_gradients",
    "courses": "log_history",
    "dialects": "apis",
    "in_step": "join_uneven_inputs",
    "kept_ends": "end_state_cache",
    "kept_features": "image_feature_cache",
    "learner": "model_state",
    "mean_costs": "mean_nll",
    "not_read": "unread_splits",
    "over_ranks": "parallelize",
    "piecewise": "varlen_attention",
    "remembering": "kv_cache",
    "remembers": "supports_kv_cache",
    "row_of_nothing": "empty_sums",
    "spare": "dummy",
    "trunk": "prefix or backbone",
    "turn_to": "set_epoch",
    "waits_for": "cache_key",
    "why_useless": "untrainable_reason",
    "without_joining": "no_sync",
    # results without a name: the thing itself
    "found": "rows, rewards, paths ...",
    "known": "names, columns ...",
    "own": "rewards, changes ...",
    "told": "unread_splits ...",
}
"""Identifiers, and what to write."""

SYNONYMS = {"picture": "image", "optimis": "optimiz"}
"""Parts of identifiers, and what to write."""


def parsed(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def identifiers(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the names that a file gives to classes, functions, parameters and variables, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def test_no_identifier_is_an_invented_word() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}; write {BANNED[name]}"
        for path in FILES
        for line, name in [(1, path.stem), *identifiers(parsed(path))]
        if name in BANNED
    ]
    assert wrong == []


@pytest.mark.parametrize("part", SYNONYMS)
def test_one_thing_has_one_word(part: str) -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}; write {SYNONYMS[part]}"
        for path in FILES
        for line, name in [(1, path.stem), *identifiers(parsed(path))]
        if part in name.lower()
    ]
    assert wrong == []


def test_docstrings_begin_with_a_noun_or_an_imperative() -> None:
    wrong = []
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            first = (ast.get_docstring(node) or "").split("\n")[0]
            if re.match(r"(What|Who|How|Which|Where)\b", first):
                wrong.append(f"{path.relative_to(PACKAGE)}: {first}")
    assert wrong == []
