"""Rationales to learn from: the target texts of a judge on pairs of responses."""

from __future__ import annotations

from collections.abc import Mapping

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.paradigms.verdicts import read_verdict

KEY = "judgements"
"""The key of a comparison's `meta` for them."""


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


def _read(entry: object, comparison: Comparison) -> tuple[tuple[int, int], str]:
    """Return which responses a judgement shows first and second, and its text.

    Raises:
        DataError: When it is not in its form, or its verdict is not what the ranks say.
    """
    if not isinstance(entry, Mapping) or set(entry) != {"first", "second", "text"}:
        raise DataError(
            f'an entry is {{"first": 0, "second": 1, "text": "..."}}, not {entry!r:.80}', field=f"meta.{KEY}"
        )
    first, second, text = entry["first"], entry["second"], entry["text"]
    numbers = range(len(comparison.responses))
    if first == second or first not in numbers or second not in numbers or not isinstance(text, str):
        raise DataError(
            f"first and second are two numbers of responses, 0 to {len(numbers) - 1}, and text is a text; "
            f"not {first!r}, {second!r} and {text!r:.40}",
            field=f"meta.{KEY}",
        )
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
    return (int(first), int(second)), text
