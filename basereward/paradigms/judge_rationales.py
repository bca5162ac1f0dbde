"""Texts of a judge on pairs of responses: those to learn from, and those that are scored as they stand.

Two keys of `meta`, since one would let a judge be scored by the texts that it is to learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.paradigms.verdicts import read_verdict

KEY = "judgements"
"""The key of a comparison's `meta` for the texts to learn from."""

VERDICTS_KEY = "verdicts"
"""The key for the texts that a judge has written, whose verdicts are read without writing again."""


def given_rationales(comparison: Comparison, *, is_needed: bool) -> dict[tuple[int, int], str]:
    """Return the judgements of a comparison by the numbers of the responses shown first and second.

    Args:
        comparison: Its meta may have `judgements`: a list of {"first": 0, "second": 1, "text": "<think>..."}.
        is_needed: Whether there must be some.

    Raises:
        DataError: When one is wrong, or some are needed and there are none.
    """
    entries = comparison.meta.get(KEY)
    if entries is None:
        if is_needed:
            raise DataError(
                'a reasoned judge learns from texts; give a list of {"first": 0, "second": 1, '
                '"text": "<think>...</think><answer>1</answer>"}',
                field=f"meta.{KEY}",
            )
        return {}
    return dict(
        _read(entry, comparison) for entry in (entries if isinstance(entries, list | tuple) else [entries])
    )


def given_verdicts(comparison: Comparison) -> dict[tuple[int, int], list[str]]:
    """Return the texts that a judge has written on a comparison, by the responses shown first and second.

    Any text will do: one that has no verdict in it is counted where it is read.

    Args:
        comparison: Its meta may have `verdicts`: a list of {"first": 0, "second": 1, "text": "<think>..."},
            with several entries of one order for several votes.

    Raises:
        DataError: When one is not in this form.
    """
    entries = comparison.meta.get(VERDICTS_KEY)
    texts: dict[tuple[int, int], list[str]] = {}
    for entry in [] if entries is None else entries if isinstance(entries, list | tuple) else [entries]:
        first, second, text = _parts(entry, comparison, VERDICTS_KEY)
        texts.setdefault((first, second), []).append(text)
    return texts


def _read(entry: object, comparison: Comparison) -> tuple[tuple[int, int], str]:
    """Return which responses a judgement shows first and second, and its text.

    Raises:
        DataError: When it is not in its form, or its verdict is not what the ranks say.
    """
    first, second, text = _parts(entry, comparison, KEY)
    verdict = read_verdict(text)
    if verdict is None:
        raise DataError(
            f"a judgement's form is <think>...</think><answer>1</answer>; {text!r:.80} isn't in it",
            field=f"meta.{KEY}",
        )
    ranks = comparison.ranks
    if (
        ranks is not None
        and ranks[first] != ranks[second]
        and (ranks[first] < ranks[second]) != (verdict == 1)
    ):
        raise DataError(
            f"the judgement of responses {first} and {second} prefers {(first, second)[verdict - 1]}, whose "
            "rank is worse; leave it out",
            field=f"meta.{KEY}",
        )
    return (first, second), text


def _parts(entry: object, comparison: Comparison, key: str) -> tuple[int, int, str]:
    """Return the numbers of the responses that an entry shows first and second, and its text.

    Raises:
        DataError: When it is not in its form.
    """
    if not isinstance(entry, Mapping) or set(entry) != {"first", "second", "text"}:
        raise DataError(
            f'an entry is {{"first": 0, "second": 1, "text": "..."}}, not {entry!r:.80}', field=f"meta.{key}"
        )
    first, second, text = entry["first"], entry["second"], entry["text"]
    numbers = range(len(comparison.responses))
    if first == second or first not in numbers or second not in numbers or not isinstance(text, str):
        raise DataError(
            f"first and second are two numbers of responses, 0 to {len(numbers) - 1}, and text is a text; "
            f"not {first!r}, {second!r} and {text!r:.40}",
            field=f"meta.{key}",
        )
    return int(first), int(second), text


def right_judgements(comparison: Comparison, entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the texts that a judge may learn: of each pair and order the first whose verdict is right.

    Args:
        comparison: With ranks; ties teach nothing.
        entries: Texts of a judge, in the form of `verdicts`.
    """
    ranks = comparison.ranks
    right: dict[tuple[int, int], dict[str, Any]] = {}
    for entry in entries:
        first, second, text = _parts(entry, comparison, VERDICTS_KEY)
        verdict = read_verdict(text)
        if ranks is None or verdict is None or ranks[first] == ranks[second]:
            continue
        if (ranks[first] < ranks[second]) == (verdict == 1):
            right.setdefault((first, second), {"first": first, "second": second, "text": text})
    return list(right.values())
