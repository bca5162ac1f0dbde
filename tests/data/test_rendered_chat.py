"""Rendered conversations: where the response begins, and what is not taken apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import chatml

from basereward.data.rendered_chat import (
    NotSeparableError,
    Turn,
    UnknownTemplateError,
    continued,
    conversation,
    split,
    turns,
)

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


UNKNOWN = {
    "mistral": "<s>[INST] what? [/INST]",
    "mistral without a beginning": "[INST]what?[/INST]",
    "mistral small": "<s>[SYSTEM_PROMPT]be short[/SYSTEM_PROMPT][INST]what?[/INST]",
    "llama 2": "<s>[INST] <<SYS>>\nbe short\n<</SYS>>\n\nwhat? [/INST]",
    "phi 3": "<|user|>\nwhat?<|end|>\n<|assistant|>\n",
    "phi 4": "<|user|>what?<|end|><|assistant|>",
    "zephyr": "<|system|>\n</s>\n<|user|>\nwhat?</s>\n<|assistant|>\n",
    "deepseek": "<\uff5cUser\uff5c>what?<\uff5cAssistant\uff5c><think>\n",
    "glm": "[gMASK]<sop><|user|>\nwhat?<|assistant|>",
    "granite": "<|start_of_role|>user<|end_of_role|>what?<|end_of_text|>\n<|start_of_role|>assistant",
    "command r": "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>what?<|END_OF_TURN_TOKEN|>",
    "harmony": "<|start|>user<|message|>what?<|end|><|start|>assistant",
    "kimi": "<|im_user|>user<|im_middle|>what?<|im_end|><|im_assistant|>assistant<|im_middle|>",
    "exaone": "[|user|]what?\n[|assistant|]",
    "gemma 4": "<bos><|turn>user\nwhat?<turn|>\n<|turn>model\n",
    "minicpm": "<\u7528\u6237>what?<AI>",
    "baichuan": "<reserved_106>what?<reserved_107>",
    "nemotron": "<extra_id_0>System\n\n<extra_id_1>User\nwhat?\n<extra_id_1>Assistant\n",
    "vicuna": "A chat. USER: what? ASSISTANT:",
    "hh": "\n\nHuman: what?\n\nAssistant:",
    "alpaca": "Below is a task.\n\n### Instruction:\nwhat?\n\n### Response:\n",
    "ling": "<role>HUMAN</role>what?<role>ASSISTANT</role>",
    "words in brackets": "[BOS]user\nwhat?[EOS]\n[BOS]assistant\n",
    "openchat": "GPT4 Correct User: what?<|end_of_turn|>GPT4 Correct Assistant:",
}


@pytest.mark.parametrize("prompt", UNKNOWN.values(), ids=UNKNOWN)
def test_a_prompt_of_an_unknown_template_is_no_question(prompt: str) -> None:
    for take in (lambda: continued(prompt, "a cat"), lambda: split(prompt + "a cat", prompt)):
        with pytest.raises(UnknownTemplateError, match=r"^prompt: looks rendered by a chat template that"):
            take()


@pytest.mark.parametrize(
    "prompt",
    [
        "what is 2 < 3 | 4 > 1?",
        "a <b>bold</b> [word] and <s-x>",
        "Question: what?\nAnswer:",
        "Who is the Assistant: a person?",
        "User: is it an Assistant?",
        "x <|> y, a[|]b, if (a < b || c > d) {}",
        "SELECT a FROM b WHERE c <> d",
        "Does <role>admin</other> end with [EOS] or [BOS]?",
        "The patient [INSTRUCTIONS] <url>",
    ],
)
def test_a_plain_question_stays_one(prompt: str) -> None:
    assert continued(prompt, "a cat") == ([Turn("user", prompt, False)], "a cat")


def test_dates_that_a_template_writes_again_are_no_system_message() -> None:
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    dates = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    for system, expected in (("be short", [Turn("system", "be short", False)]), ("", [])):
        prompt = (
            f"<|begin_of_text|>{header.format('system')}{dates}{system}<|eot_id|>"
            f"{header.format('user')}what?<|eot_id|>{header.format('ipython')}12 C<|eot_id|>"
            f"{header.format('assistant')}"
        )
        asked = [Turn("user", "what?", False), Turn("tool", "12 C", False)]
        assert continued(prompt, "a cat<|eot_id|>") == ([*expected, *asked], "a cat")


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
