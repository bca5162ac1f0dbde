"""Rendered conversations: where the response begins, and what is not taken apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import chatml

from basereward.data.rendered_chat import NotSeparableError, Turn, continued, conversation, split, turns

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="<"), min_size=1).filter(
    str.strip
)


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), texts), min_size=1), texts)
def test_a_prompt_of_any_turns_is_read_back(asked: list[tuple[str, str]], response: str) -> None:
    prompt = chatml(*asked, asks=True)
    parsed, answer = split(f"{prompt}{response}<|im_end|>\n", prompt)
    assert [(turn.role, turn.text) for turn in parsed] == asked
    assert answer == response


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_is_taken_apart_or_refused(text: str) -> None:
    try:
        parsed, response = conversation(text)
    except NotSeparableError:
        pass
    else:
        assert response in text
        assert all(turn.text in text for turn in parsed)


@given(st.lists(st.sampled_from(["<|im_start|>", "<|im_end|>", "user\n", "assistant\n", "\n", "x"])))
def test_a_response_never_becomes_a_turn(pieces: list[str]) -> None:
    prompt = chatml(("user", "what?"), asks=True)
    parsed, response = continued(prompt, "".join(pieces) + "end")
    assert parsed == [Turn("user", "what?", False)]
    assert response == "".join(pieces) + "end"


def test_a_text_without_turns_is_no_conversation() -> None:
    assert turns("what is it? a cat") is None
    with pytest.raises(NotSeparableError, match="^prompt: "):
        conversation("what is it? a cat")


@pytest.mark.parametrize(
    "text",
    [
        chatml(("user", "what?")),
        chatml(("assistant", "a"), ("user", "what?")),
        chatml(("user", "what?"), ("assistant", "no"), ("user", "again?"), ("assistant", "yes")),
        "before " + chatml(("user", "what?"), ("assistant", "a")),
        chatml(("user", "what?"), ("assistant", "a")) + "after",
    ],
)
def test_a_conversation_has_one_answer_and_it_is_the_last_of_the_text(text: str) -> None:
    with pytest.raises(NotSeparableError, match="^prompt: "):
        conversation(text)
