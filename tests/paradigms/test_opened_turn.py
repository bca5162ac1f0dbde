"""A judge is asked, trained and rewarded in one turn, whatever its template writes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from chat_families import FAMILIES, tokenizer_of
from hypothesis import given
from hypothesis import strategies as st

from basereward import Comparison, RewardModel
from basereward.backbones.chat_template import Chat
from basereward.backbones.generation import Generation
from basereward.backbones.opened_turn import asking, opening_of, rest_of_turn, whole_turn
from basereward.config import Component
from basereward.errors import DataError
from basereward.integrations import trl
from basereward.integrations.judge_grpo import format_reward, r1_reward, verdict_reward
from basereward.message import Message

ASKED = [Message("user", ("which is better",))]
ANSWER = "<think>the cat</think><answer>1</answer>"
OPENINGS = {"qwq": "<think>\n", "deepseek-r1": "<think>\n"}


def opened(family: str) -> str:
    return str(
        tokenizer_of(family).apply_chat_template(
            [{"role": "user", "content": "which is better"}], tokenize=False, add_generation_prompt=True
        )
    )


@pytest.mark.parametrize(
    "family", [name for name, family in FAMILIES.items() if "strftime" not in family.template]
)
def test_a_reasoned_answer_goes_on_in_the_turn_that_is_opened(family: str) -> None:
    if FAMILIES[family].in_parts or family == "text-form":
        pytest.skip("no turns of texts")
    tokenizer = tokenizer_of(family)
    tokenizer.chat_template = FAMILIES[family].template
    chat = Chat(tokenizer)
    assert chat.opening == OPENINGS.get(family, "")
    with asking("opened"):
        prompt, [answer, other] = chat.encode(ASKED, [ANSWER, "other"])
    # What the policy of a reinforcement learning is asked.
    assert prompt == tokenizer(opened(family), add_special_tokens=False)["input_ids"]
    end = chat.end_ids
    assert answer[len(answer) - len(end) :] == other[len(other) - len(end) :] == end
    written = tokenizer.decode(answer[: len(answer) - len(end)])
    assert chat.opening + written == ANSWER.replace("<think>", "<think>\n" if chat.opening else "<think>")


@pytest.mark.parametrize("family", ["chatml", "qwen3", "llama2", "phi3"])
def test_a_verdict_stands_in_a_finished_turn(family: str) -> None:
    tokenizer = tokenizer_of(family)
    tokenizer.chat_template = FAMILIES[family].template
    chat = Chat(tokenizer)
    with asking("finished"):
        prompt, [one, two] = chat.encode(ASKED, ["1", "2"])
    assert one[1:] == two[1:]
    prompts = [chat.encode(ASKED, [answer])[0] for answer in ("1", "2")]
    assert prompts[0] == prompts[1] == prompt[: len(prompts[0])]


@pytest.mark.parametrize("column", [{"turn_opening": ["<think>\n"]}, {}])
def test_rewards_of_a_judge_see_the_whole_turn(column: dict[str, Any]) -> None:
    written = "the cat is there; response 1 is better</think><answer>1</answer>"
    assert format_reward([written], **column) == [1.0]
    assert verdict_reward([written], [1], **column) == [1.0]
    assert verdict_reward([written], [2], **column) == [0.0]
    assert r1_reward()([written], [1], **column) == [1.5]
    assert format_reward([[{"role": "assistant", "content": ANSWER}]], **column) == [1.0]


def test_a_policy_whose_template_opens_nothing_begins_its_thinking_itself() -> None:
    assert format_reward(["the cat</think><answer>1</answer>"], turn_opening=[""]) == [0.0]
    assert format_reward(["<answer>1</answer>"]) == [0.0]


def test_a_reward_model_is_given_the_whole_turn() -> None:
    seen: list[str] = []

    def remember(comparisons: Any) -> list[list[float] | DataError]:
        seen.extend(text for each in comparisons for text in each.responses)
        return [[0.0] * len(each.responses) for each in comparisons]

    texts = ["a cat</think>yes", "<think>a cat</think>yes", "yes", " "]
    columns = {"prompts": ["p"] * 4, "completions": texts, "completion_ids": [[0]] * 4}
    trl.reward_func(remember)(**columns)
    assert seen == ["<think>a cat</think>yes", "<think>a cat</think>yes", "yes"]
    seen.clear()
    trl.reward_func(remember)(**columns, turn_opening=["<think>\n"] * 4)
    assert seen == ["<think>\na cat</think>yes", "<think>a cat</think>yes", "<think>\nyes"]


@given(st.text(st.sampled_from("a <>/\n")), st.sampled_from(["", "<think>", "<think>\n", "<thought>\n"]))
def test_what_is_left_of_a_turn_and_its_beginning_are_the_turn(text: str, opening: str) -> None:
    whole = whole_turn(text, opening)
    assert whole.lstrip().startswith(opening.strip()) or not text.strip()
    again = whole_turn(rest_of_turn(whole, opening), opening)
    assert "".join(again.split()) == "".join(whole.split()) or not rest_of_turn(whole, opening).strip()
    assert opening_of(f"a question\n{opening}") == opening


def judge_of(place: Path, family: str) -> RewardModel:
    """Return a judge that reasons, whose tokenizer has a family's template."""
    tiny.add_language_head(tiny.save_causal_lm(place))
    words = tokenizer_of(family)
    words.chat_template = FAMILIES[family].template
    words.save_pretrained(place)
    model = RewardModel.build(
        backbone=Component("causal-lm", {"model": str(place)}),
        paradigm=Component("generative", {"template": "reasoned"}),
    )
    model.paradigm.eval()
    return model


@pytest.mark.parametrize("family", ["qwen3", "qwq"])
def test_a_judge_is_asked_as_a_policy_is_and_its_whole_turn_is_read(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = judge_of(tmp_path, family)
    words = model.backbone.tokenizer
    row = Comparison("what is shown", ["a cat", "a dog"], ranks=[0, 1])
    paradigm: Any = model.paradigm
    tree = paradigm.prepare(row).content.tree
    [message] = paradigm.template.messages(row.prompt, row.responses)
    asked = words.apply_chat_template(
        [{"role": "user", "content": message.text}], tokenize=False, add_generation_prompt=True
    )
    assert tree.prompt + tree.responses[0] == words(asked, add_special_tokens=False)["input_ids"]

    written = ANSWER.removeprefix(OPENINGS.get(family, "").strip())
    ids = words(written, add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(
        "basereward.paradigms.generative.generate",
        lambda backbone, head, trees, **options: [
            [Generation(ids, True) for _ in tree.responses] for tree in trees
        ],
    )
    texts = [each["text"] for each in paradigm.judge(row)]
    assert texts == [OPENINGS.get(family, "") + written] * 2
    # The first response is better in both orders, as "1" says each time: a half for each.
    assert model.score([row]) == [[0.5, 0.5]]
    # What it wrote can be learnt: the tokens that follow the question are the same.
    learnt = row.with_meta(judgements=[{"first": 0, "second": 1, "text": texts[0]}])
    with model.paradigm.evaluating():
        assert list(paradigm.prepare(learnt).content.rationales.values()) == [ids]
