"""Completions are grouped by all of their prompt, and one that is bad leaves the others theirs."""

from __future__ import annotations

import asyncio
import io
import json
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from basereward import Comparison
from basereward.errors import DataError
from basereward.integrations import ms_swift, openrlhf, slime, verl
from basereward.integrations.completions import CompletionScorer
from basereward.integrations.reward_source import reward_source
from basereward.integrations.rules import exact_match
from basereward.integrations.shaping import Rewards, Rollouts, group_normalized, hybrid
from basereward.integrations.trl import reward_func, rule_reward
from basereward.media.image import Image

RED, BLUE = (Pillow.new("RGB", (2, 2), colour) for colour in ("red", "blue"))
RED_AGAIN = Pillow.new("RGB", (2, 2), "red")
CALL = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]


def redness(comparisons: Sequence[Comparison]) -> list[list[float] | DataError]:
    """Reward the red of the first pixel, and each character; a response "bad" fails with those beside it."""
    results: list[list[float] | DataError] = []
    for each in comparisons:
        try:
            if "bad" in each.responses:
                raise DataError("is bad")
            red = sum(image.open().getpixel((0, 0))[0] for image in each.images)
            results.append([red + len(text) for text in each.responses])
        except DataError as error:
            results.append(error)
    return results


def asked(text: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def shown(image: Any) -> list[dict[str, Any]]:
    return asked([{"type": "image", "image": image}, {"type": "text", "text": "How many?"}])


def trl_columns(prompts: Sequence[Any], completions: Sequence[Any], **more: Any) -> dict[str, Any]:
    return {"prompts": prompts, "completions": completions, "completion_ids": [[0]] * len(prompts), **more}


def in_trl(prompts: Sequence[Any], completions: Sequence[Any], **more: Any) -> list[float | None]:
    return reward_func(redness)(**trl_columns(prompts, completions, **more))


def test_equal_words_beside_other_images_are_other_prompts() -> None:
    # 255 for red and 5 characters of "three".
    assert in_trl(["How many?"] * 2, ["three"] * 2, image=[RED, BLUE]) == [260.0, 5.0]
    assert in_trl([shown(RED), shown(BLUE)], ["three"] * 2) == [260.0, 5.0]
    rows = [[*asked("<image>How many?"), {"role": "assistant", "content": "three"}]] * 2
    scored = ms_swift.orm(redness)()(["three"] * 2, messages=rows, images=[[RED], [BLUE]])
    assert scored == [260.0, 5.0]


def groups_of(prompts: Sequence[Any], images: Sequence[Sequence[object]]) -> Sequence[int]:
    found: list[Sequence[int]] = []

    def remember(rewards: Rewards, rollouts: Rollouts) -> list[float | None]:
        found.append(rollouts.groups)
        return list(rewards)

    texts = ["three"] * len(prompts)
    CompletionScorer(redness, shapes=[remember]).score(
        prompts, texts, images=images, lengths=[1] * len(texts), columns={}
    )
    return found[0]


def test_a_group_is_one_prompt_wherever_its_completions_stand() -> None:
    images = [[RED], [BLUE], [RED_AGAIN], []]
    assert groups_of(["How many?"] * 4, images) == [0, 1, 0, 2]
    assert groups_of([shown(RED), shown(BLUE), shown(RED_AGAIN)], [[]] * 3) == [0, 1, 0]
    # The text and the message of a user are one prompt; of another role it is another.
    assert groups_of(["a", asked("a"), [{"role": "tool", "content": "a"}]], [[]] * 3) == [0, 0, 1]


def test_rewards_are_normalized_within_a_prompt_and_its_images() -> None:
    scorer = CompletionScorer(redness, shapes=[group_normalized(epsilon=1e-9)])
    _, shaped = scorer.score(
        ["How many?"] * 4,
        ["a", "aaa", "a", "aaa"],
        images=[[RED], [RED], [BLUE], [BLUE]],
        lengths=[1] * 4,
        columns={},
    )
    # In each group the rewards are m - 1 and m + 1, whose standard deviation is √2.
    assert shaped == pytest.approx([-1 / math.sqrt(2), 1 / math.sqrt(2)] * 2, abs=1e-6)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "<image>a"]), st.integers(0, 2), st.sampled_from(["x", "yy", "bad"])
        ),
        min_size=1,
        max_size=8,
    )
)
def test_a_completion_has_the_reward_that_it_has_alone(rows: list[tuple[str, int, str]]) -> None:
    images = {0: [], 1: [RED], 2: [BLUE]}
    prompts = [text for text, _, _ in rows]
    shows = [images[number] for _, number, _ in rows]
    texts = [text for _, _, text in rows]

    def score(places: Sequence[int]) -> list[float | None]:
        try:
            raw, _ = CompletionScorer(redness).score(
                [prompts[at] for at in places],
                [texts[at] for at in places],
                images=[shows[at] for at in places],
                lengths=[1] * len(places),
                columns={},
            )
        except DataError:  # none of them can be scored
            return [None] * len(places)
        return raw

    places = range(len(rows))
    assert score(places) == [score([at])[0] for at in places]


def test_a_completion_that_calls_a_tool_leaves_its_neighbours_their_rewards() -> None:
    call = {"role": "assistant", "tool_calls": CALL}
    said = [{"role": "assistant", "content": "three"}]
    after_call = [call, {"role": "tool", "content": "12 C"}, *said]
    completions = [said, [call], after_call, [{"role": "assistant", "content": None}], said]
    rewards = in_trl([asked("How many?")] * 5, completions)
    assert (rewards[0], rewards[1], rewards[3], rewards[4]) == (5.0, None, None, 5.0)
    rows = [[*asked("How many?"), *completion] for completion in completions]
    rewards = ms_swift.orm(redness)()(["three"] * 5, messages=rows)
    assert (rewards[0], rewards[1], rewards[3], rewards[4]) == (5.0, None, None, 5.0)


def test_an_image_that_is_missing_costs_its_own_completion_alone() -> None:
    rewards = in_trl(["How many?"] * 3, ["three"] * 3, image=[RED, "nowhere.png", BLUE])
    assert rewards == [260.0, None, 5.0]


def test_a_bad_response_leaves_those_of_its_prompt_their_rewards() -> None:
    assert in_trl(["How many?"] * 3, ["three", "bad", "two"]) == [5.0, None, 3.0]


def test_what_can_not_be_sent_to_a_server_leaves_the_others_their_rewards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(request: Any, *_: Any) -> bytes:
        items = json.loads(request.data)["items"]
        data = [{"index": at, "error": None, "rewards": [1.0]} for at in range(len(items))]
        return json.dumps({"data": data}).encode()

    monkeypatch.setattr("basereward.integrations.reward_source.response_body", answer)
    source = reward_source("http://127.0.0.1:9")
    film = Comparison("What happens?", ["a"], videos=[[RED]])
    missing = Comparison("What is it?", ["a"], images=["nowhere.png"])
    first, *others, last = source([Comparison("p", ["a"]), film, missing, Comparison("p", ["a"])])
    assert first == last == [1.0]
    assert [isinstance(result, DataError) for result in others] == [True, True]
    assert [isinstance(result, DataError) for result in source([film])] == [True]


def sample(prompt: Any, response: str) -> SimpleNamespace:
    return SimpleNamespace(
        prompt=prompt, response=response, response_length=1, label=None, metadata={}, multimodal_inputs=None
    )


OPEN = "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n"
PLACE = OPEN.replace("How", "<|image_pad|>How")
"""A rendered prompt whose image did not come along."""


def test_a_prompt_that_can_not_be_read_has_what_was_said_and_the_others_their_rewards() -> None:
    rewards = slime.custom_rm(redness, unscored=-1.0)
    assert asyncio.run(rewards(None, [sample(OPEN, "three"), sample(PLACE, "three")])) == [5.0, -1.0]
    with pytest.raises(DataError, match=r"^sample 1 of 2 can't be scored"):
        asyncio.run(slime.custom_rm(redness)(None, [sample(OPEN, "three"), sample(PLACE, "three")]))
    score = openrlhf.reward_func(redness, unscored=-1.0)
    result = score([OPEN + "three", PLACE + "three", "other"], [OPEN, PLACE, OPEN], [None] * 3)
    assert result["rewards"].tolist() == [5.0, -1.0, -1.0]
    assert result["extra_logs"]["unscored"] == [0.0, 1.0, 1.0]
    with pytest.raises(DataError, match=r"^images: the prompt has a place for an image"):
        openrlhf.reward_func(redness)([PLACE + "three"], [PLACE], [None])


def test_verl_gives_a_prompt_that_can_not_be_read_what_was_said() -> None:
    score = verl.compute_score(redness, unscored=-1.0)
    result = asyncio.run(score("d", "three", "x", {"question": [{"role": "user"}]}))
    assert (result["score"], result["unscored"]) == (-1.0, 1.0)


def test_an_answer_that_no_rule_can_read_costs_its_own_row_alone() -> None:
    def rule(completion: str, answer: Any) -> bool:
        if answer is None:
            raise DataError("is no expression", field="answer")
        return exact_match(completion, answer)

    said = [[{"role": "assistant", "content": text}] for text in ("three", "three", "two")]
    columns = trl_columns(["p"] * 3, said, answer=["three", None, "three"])
    assert rule_reward(rule)(**columns) == [1.0, None, 0.0]
    shaped = reward_func(redness, shapes=[hybrid(rule)])(**columns)
    # The sigmoid of 3 characters.
    assert shaped == [1.0, None, pytest.approx(1 / (1 + math.exp(-3)))]
    with pytest.raises(DataError, match="^answer: is no expression"):
        rule_reward(rule)(**trl_columns(["p"], said[:1], answer=[None]))


def test_images_in_memory_are_known_by_their_pixels() -> None:
    # The same indices into two palettes.
    one, other = Pillow.new("P", (2, 2), 0), Pillow.new("P", (2, 2), 0)
    one.putpalette([255, 0, 0])
    other.putpalette([0, 0, 255])
    assert Image(one).digest != Image(other).digest
    assert Image(RED).digest == Image(RED_AGAIN).digest
    buffer = io.BytesIO()
    one.save(buffer, "PNG")
    assert in_trl(["How many?"] * 2, ["three"] * 2, image=[one, other]) == [260.0, 5.0]


INST = "<s>[INST] How many? [/INST]"


def test_a_prompt_of_an_unknown_template_is_refused_with_the_reason_in_every_adapter() -> None:
    reason = r"^prompt: looks rendered by a chat template that isn't known: it has '<s>'"
    with pytest.raises(DataError, match=reason):
        openrlhf.reward_func(redness)([INST + "three"], [INST], [None])
    with pytest.raises(DataError, match=reason):
        in_trl([INST], ["three"])
    with pytest.raises(DataError, match=reason):
        asyncio.run(verl.compute_score(redness)("d", "three", "x", {"question": INST}))
    with pytest.raises(DataError, match=reason):
        asyncio.run(slime.custom_rm(redness)(None, sample(INST, "three")))
    assert in_trl([INST, "How many?", OPEN], ["three"] * 3) == [None, 5.0, 5.0]


def test_a_rendered_text_prompt_is_its_messages() -> None:
    seen: list[Comparison] = []

    def remember(comparisons: Sequence[Comparison]) -> list[list[float] | DataError]:
        seen.extend(comparisons)
        return [[0.0] * len(each.responses) for each in comparisons]

    opened = OPEN + "<think>\n"
    reward_func(remember)(**trl_columns([OPEN, asked("How many?"), opened], ["a", "b", "c</think>d"]))
    assert [(each.prompt[0].text, each.responses) for each in seen] == [
        ("How many?", ("a", "b", "<think>\nc</think>d"))
    ]


@pytest.mark.parametrize("role", ["tool", "user", "system"])
def test_only_what_the_assistant_says_is_scored(role: str) -> None:
    turns = [{"role": "assistant", "content": "good"}, {"role": role, "content": "cat"}]
    said = [{"role": "assistant", "content": "three"}]
    assert in_trl([asked("p")] * 2, [turns, said]) == [None, 5.0]
    assert rule_reward(exact_match)([turns], answer=["cat"]) == [0.0]
    rows = [[*asked("p"), *turns], [*asked("p"), *said]]
    assert ms_swift.orm(redness)()([], messages=rows) == [None, 5.0]
    with pytest.raises(DataError, match=f"ends in a message of the assistant, not of '{role}'"):
        in_trl([asked("p")], [turns])


def test_images_beside_those_of_the_prompt_are_the_same_or_refused() -> None:
    buffer = io.BytesIO()
    RED.save(buffer, "PNG")
    prompts = [shown(RED)] * 5
    images = [[RED], [RED_AGAIN], [buffer.getvalue()], None, [BLUE]]
    assert in_trl(prompts, ["three"] * 5, images=images) == [260.0] * 4 + [None]
    assert in_trl(prompts[:2], ["three"] * 2, image=[BLUE, RED]) == [None, 260.0]
    assert in_trl(prompts[:2], ["three"] * 2, images=[[RED, BLUE], [RED]]) == [None, 260.0]
    with pytest.raises(DataError, match=r"^images: the prompt has images of its own"):
        in_trl(prompts[:1], ["three"], images=[[BLUE]])


def test_an_array_is_no_image_and_costs_its_own_reward_alone() -> None:
    array = numpy.zeros((4, 4, 3), numpy.uint8)
    assert in_trl(["p"] * 4, ["three"] * 4, images=[array, [array], [], RED]) == [None, None, 5.0, 260.0]
    with pytest.raises(DataError, match=r"^images: an image is a path.*not ndarray"):
        in_trl(["p"] * 2, ["three"] * 2, images=numpy.zeros((2, 4, 4, 3)))
    held = numpy.empty(1, object)
    held[0] = RED
    assert in_trl(["p"] * 2, ["three"] * 2, images=[held, None]) == [260.0, 5.0]
    assert in_trl(["p"] * 2, ["three"] * 2, pixel_values=[array, None]) == [None, 5.0]
    info = {"question": "p", "images": held}
    assert asyncio.run(verl.compute_score(redness)("d", "three", "x", info))["score"] == 260.0
