"""Edits of responses: the texts of each rule, and content that stays."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from basereward.evaluation.audit.features import FEATURES
from basereward.evaluation.audit.response_edits import LONGER, SHORTCUTS, TEXT_CHANGES, edited

TEXT = "The sky is blue. It is noon."
EDITS = {**SHORTCUTS, **TEXT_CHANGES}


def texts(name: str, text: str = TEXT, seed: int = 0) -> tuple[str, str]:
    result = edited(EDITS[name], text, seed=seed, row=0, name=name)
    assert result is not None
    return result


def test_the_texts_of_each_rule() -> None:
    assert texts("repetition") == (
        f"{TEXT} The rest follows from what was said so far.",
        f"{TEXT} It is noon.",
    )
    assert texts("lists") == ("The sky is blue.\nIt is noon.", "- The sky is blue.\n- It is noon.")
    assert texts("emphasis") == (TEXT, "**The** sky is blue. It is noon.")
    without, hedged = texts("hedging")
    assert without.endswith(", the sky is blue. It is noon.")
    assert hedged.endswith("the sky is blue. It is noon.")
    assert without != hedged
    for name in ("refusal", "agreement"):
        assert all(text.endswith(f" {TEXT}") for text in texts(name))
    for name in ("confidence", "language"):
        assert all(text.startswith(f"{TEXT} ") for text in texts(name))
    assert texts("case") == (TEXT, TEXT.lower())
    assert re.sub(r"\s+", " ", texts("whitespace")[1]).strip() == TEXT


def test_an_edit_raises_its_own_feature() -> None:
    for name in FEATURES.keys() - {"repetition"}:
        without, with_shortcut = texts(name)
        assert FEATURES[name](with_shortcut) > FEATURES[name](without), name
    said = "It is as it was then."
    without, twice = texts("repetition", said)
    assert FEATURES["repetition"](twice) > FEATURES["repetition"](without) == 0


@given(st.text(min_size=1).filter(str.strip), st.integers(0, 9))
@example("...", 0)
@example("\ud800", 0)
def test_any_response_can_be_edited_and_a_seed_gives_the_same(text: str, seed: int) -> None:
    for name, edit in EDITS.items():
        result = edited(edit, text, seed=seed, row=3, name=name)
        assert result == edited(edit, text, seed=seed, row=3, name=name)
        assert result is None or all(part.strip() for part in result), name


@given(st.text("ab c.", min_size=1, max_size=300).filter(str.strip))
def test_a_padded_text_is_longer_by_what_is_promised(text: str) -> None:
    without, longer = texts("length", text)
    assert without == text
    assert len(longer) >= LONGER * len(text)


@given(st.text(min_size=1).filter(str.strip))
def test_a_typo_keeps_the_letters(text: str) -> None:
    result = edited(TEXT_CHANGES["typos"], text, seed=0, row=0, name="typos")
    if result is not None:
        assert sorted(result[1]) == sorted(text)
        assert sum(one != other for one, other in zip(*result, strict=True)) == 2


@pytest.mark.parametrize("text", ["I see it.", "NASA did.", "A cat"])
def test_words_that_are_written_so_stay_in_capitals(text: str) -> None:
    assert texts("hedging", text)[0].endswith(text)
