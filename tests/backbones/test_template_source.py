"""The text of a chat template: one of several, and the same every day."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tiny
import torch
from chat_families import FAMILIES, tokenizer_of
from hypothesis import given
from hypothesis import strategies as st

from basereward import Comparison, RewardModel
from basereward.backbones.chat_template import Chat
from basereward.backbones.template_source import (
    KEEPS_TAIL,
    SKIPS_PADDING,
    chosen_template,
    frozen_template,
    with_note,
)
from basereward.config import Component
from basereward.errors import ConfigError, DataError
from basereward.message import Message

TOKENIZER = tiny.tokenizer()
DATED = [name for name, family in FAMILIES.items() if "strftime_now" in family.template]


def rendered(template: str, day: str = "2031-12-05", **given: Any) -> str:
    """Return what transformers makes of a template on a day."""
    with mock.patch("transformers.utils.chat_template_utils.datetime") as clock:
        clock.now.return_value = datetime.fromisoformat(day)
        return str(
            TOKENIZER.apply_chat_template(
                [{"role": "user", "content": "hi"}], chat_template=template, tokenize=False, **given
            )
        )


@pytest.mark.parametrize("family", DATED)
def test_a_frozen_template_writes_in_transformers_what_it_did_on_its_day(family: str) -> None:
    template = FAMILIES[family].template
    frozen = frozen_template(template, "2025-02-03")
    given = FAMILIES[family].extra
    assert rendered(frozen, **given) == rendered(template, "2025-02-03", **given)
    assert rendered(template, **given) != rendered(frozen, **given)
    assert frozen_template(frozen, "2031-12-05") == frozen


def test_the_day_is_in_tokens_digest_and_fingerprint_and_the_same_every_day() -> None:
    tokenizer = tokenizer_of("llama3.2")
    made = []
    for day in ("2024-01-02", "2024-07-05"):
        tokenizer.chat_template = FAMILIES["llama3.2"].template
        with mock.patch("transformers.utils.chat_template_utils.datetime") as clock:
            clock.now.return_value = datetime.fromisoformat(day)
            chat = Chat(tokenizer)
            made.append((chat.encode([Message("user", ("hi",))], ["a"]), chat.digest, chat.fingerprint))
    assert made[0] == made[1]
    tokenizer.chat_template = frozen_template(FAMILIES["llama3.2"].template, "2024-01-02")
    other = Chat(tokenizer)
    assert other.encode([Message("user", ("hi",))], ["a"]) != made[0][0]
    assert other.digest != made[0][1]
    assert other.fingerprint != made[0][2]


@given(
    st.lists(
        st.sampled_from(
            ["%Y", "%m", "%d", "%B", "%b", "%y", "%j", "%A", "%H:%M", "%%", "%-d", "%F", "-", " "]
        )
    )
)
def test_any_format_is_frozen(pieces: list[str]) -> None:
    form = "".join(pieces)
    # As a constant, and as one that the template puts together.
    template = f"{{% set form = {form!r} %}}{{{{ strftime_now({form!r}) }}}} {{{{ strftime_now(form) }}}}"
    assert rendered(frozen_template(template, "2025-02-03")) == rendered(template, "2025-02-03")


@pytest.mark.parametrize(
    "beginning", ["", "\n", "\n\n", "  ", "  {% if true %}\n x{% endif %}", "{#- a -#} b"]
)
@pytest.mark.parametrize("tail", ["", "{{ strftime_now('%Y') }}"])
def test_notes_and_days_change_nothing_else(beginning: str, tail: str) -> None:
    template = f"{beginning}{{% for m in messages %}}\n{{{{ m.content }}}}\n{{% endfor %}}{tail}"
    changed = frozen_template(template, "2025-02-03")
    for note in (KEEPS_TAIL, SKIPS_PADDING):
        changed = with_note(changed, note)
    assert rendered(changed) == rendered(template, "2025-02-03")
    # A note that was there before the day.
    noted = frozen_template(with_note(template, KEEPS_TAIL), "2025-02-03")
    assert rendered(noted) == rendered(template, "2025-02-03")
    assert noted.startswith(KEEPS_TAIL)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ ['a', 'b'] | random }}", "writes something at random"),
        ("{{ lipsum() }}", "writes something at random"),
        ("{% for m in messages %}", "can't be parsed: "),
    ],
)
def test_a_template_that_can_not_be_kept_is_refused(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        frozen_template(template)


def test_a_template_that_defines_the_clock_itself_is_unchanged() -> None:
    template = "{% macro strftime_now(f) %}today{% endmacro %}{{ strftime_now('%d') }}"
    assert frozen_template(template) == template


@pytest.mark.parametrize("date", ["", "26 Jul 2024", "2024-13-01", "2024-02-30"])
def test_a_day_that_is_none_is_an_error(date: str) -> None:
    with pytest.raises(ConfigError, match=r"it is a day such as 2024-07-26"):
        frozen_template("{{ strftime_now('%d') }}", date)


def test_of_several_templates_the_default_or_the_named_one_is_taken() -> None:
    several = {"default": "{{ messages[0].content }}", "rag": "RAG {{ messages[0].content }}"}
    assert chosen_template(several) == several["default"]
    assert chosen_template(several, "rag") == several["rag"]
    assert chosen_template("one", "rag") == "one"
    assert chosen_template(None) is None
    with pytest.raises(ConfigError) as raised:
        chosen_template({"rag": "x", "tool_use": "y"})
    assert str(raised.value) == (
        "the tokenizer has no chat template 'default', only rag, tool_use; name one of these by the "
        "backbone's option chat_template"
    )


def test_special_tokens_that_a_template_writes_are_in_the_fingerprint() -> None:
    # They stand in the tokenizer's config, and in no part of its tokens.
    chats = []
    for token in ("<|im_start|>", "<|endoftext|>"):
        tokenizer = tiny.tokenizer()
        tokenizer.bos_token = token
        chats.append(Chat(tokenizer))
    assert chats[0].digest == chats[1].digest
    assert chats[0].fingerprint != chats[1].fingerprint


def test_a_template_that_fails_on_a_conversation_says_so() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{{ 1 // (loop.length - 2) }}{% endfor %}"
    with pytest.raises(DataError, match=r"^prompt: the chat template refuses the messages: .*zero"):
        Chat(tokenizer).encode([Message("user", ("hi",))], ["a"])


DATED_CHATML = (
    "{{- bos_token if bos_token else '' }}{% set today = strftime_now('%d %b %Y') %}"
    "<|im_start|>system\nToday Date: {{ today }}\n<|im_end|>\n" + tiny.TEMPLATE
)


def test_a_saved_model_has_its_template_and_its_day(tmp_path: Path) -> None:
    tiny.save_causal_lm(tmp_path / "base")
    words = tiny.tokenizer()
    words.chat_template = {"default": tiny.TEMPLATE, "dated": DATED_CHATML}
    words.save_pretrained(tmp_path / "base")
    row = Comparison("what is it", ["a cat", "a dog"])

    def built(**options: str) -> RewardModel:
        torch.manual_seed(0)
        model = RewardModel.build(
            backbone=Component("causal-lm", {"model": str(tmp_path / "base"), **options})
        )
        model.paradigm.eval()
        return model

    dated, later = built(chat_template="dated"), built(chat_template="dated", template_date="2025-02-03")
    models = [built(), dated, later]
    assert len({model.template_digest for model in models}) == 3
    assert len({model.backbone.fingerprint() for model in models}) == 3
    texts = [words.decode(model.backbone.encode(row).prompt) for model in models]
    assert ["Today Date: 26 Jul 2024" in text for text in texts] == [False, True, False]
    assert ["Today Date: 03 Feb 2025" in text for text in texts] == [False, False, True]
    for number, model in enumerate(models):
        model.save(tmp_path / f"saved-{number}")
        with mock.patch("transformers.utils.chat_template_utils.datetime") as clock:
            clock.now.return_value = datetime(2031, 12, 5)
            again = RewardModel.load(tmp_path / f"saved-{number}")
            assert again.score([row]) == model.score([row])
        assert again.template_digest == model.template_digest
    with pytest.raises(ConfigError, match="has no chat template 'date', only dated, default"):
        built(chat_template="date")
    with pytest.raises(ConfigError, match="backbone option template_date is 'June'"):
        built(template_date="June")
