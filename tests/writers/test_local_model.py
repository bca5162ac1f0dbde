"""The writer `own` writes what the model alone would write, many texts together, each image read once."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from basereward.backbones.generation import generate
from basereward.comparison import Comparison
from basereward.config import Component
from basereward.errors import ConfigError
from basereward.media.image import Image
from basereward.message import Message
from basereward.scoring.reward_model import RewardModel
from basereward.writers.local_model import LocalModel
from basereward.writers.question_tree import encode_answers, question_tree
from basereward.writers.request import Completion, Request


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.add_language_head(tiny.save_qwen_vl(tmp_path_factory.mktemp("writer") / "model"))


@pytest.fixture(scope="module")
def writer(directory: Path) -> LocalModel:
    torch.manual_seed(0)
    return LocalModel(model=str(directory), backbone="qwen-vl", batch_size=6)


def asked(number: int, *, group: int | None = None, **settings: object) -> Request:
    content = [Image(tiny.image(84, 56, 1)), tiny.sentence(1, 5), tiny.sentence(number, 2 + number)]
    return Request([Message("user", tuple(content))], group=group, **{"max_tokens": 12, **settings})


def alone(writer: LocalModel, request: Request) -> str:
    """Return the text of a request by the loop on a tree of its own."""
    tree = question_tree(writer.backbone, [request.messages], reserve_tokens=20, turn="opened")
    _, end = encode_answers(writer.backbone, [], turn="opened")
    [[generation]] = generate(writer.backbone, writer.head, [tree], max_tokens=12, stop_ids=end)
    return writer.backbone.text(generation.ids)


def test_texts_are_those_of_each_request_alone_in_their_order(writer: LocalModel) -> None:
    requests = [asked(number, group=number // 3) for number in range(8)]
    requests += [Request([Message("user", ("no image",))], max_tokens=12)]
    written = writer.write(requests)
    assert [each.text for each in written] == [alone(writer, request) for request in requests]
    assert {each.ending for each in written} <= {"finished", "cut"}
    assert all(each.num_tokens <= 12 for each in written)


def test_the_images_of_a_group_are_read_once(writer: LocalModel) -> None:
    num_patches: list[int] = []
    handle = writer.backbone.register_forward_pre_hook(
        lambda _, arguments: num_patches.append(len(arguments[0].media.get("pixel_values", ())))
    )
    try:
        together = writer.write([asked(number, group=7) for number in range(4)])
        apart = writer.write([asked(number) for number in range(4)])
    finally:
        handle.remove()
    # An image of 84 x 56 pixels has 6 x 4 patches of 14 pixels.
    assert [num for num in num_patches if num] == [24, 4 * 24]
    assert [each.text for each in together] == [each.text for each in apart]


def test_requests_of_a_group_with_other_images_are_not_taken_for_alike(writer: LocalModel) -> None:
    requests = [
        Request([Message("user", (Image(tiny.image(84, 56, seed)), "what?"))], max_tokens=12, group=1)
        for seed in (1, 2)
    ]
    assert [each.text for each in writer.write(requests)] == [alone(writer, each) for each in requests]


def test_a_beginning_is_in_the_text_and_choices_have_the_models_probabilities(
    writer: LocalModel,
) -> None:
    [begun] = writer.write([asked(1, beginning="a cat")])
    assert begun.text.startswith("a cat")
    [chosen] = writer.write([asked(1, choices=("1", "2"))])
    tree = question_tree(writer.backbone, [asked(1).messages], reserve_tokens=2, turn="opened")
    hidden = writer.backbone(writer.backbone.pack([tree]))[0, -1]
    of_vocabulary = writer.head(hidden).log_softmax(-1).detach()
    (first, second), _ = encode_answers(writer.backbone, ["1", "2"], turn="opened")
    expected = {"1": float(of_vocabulary[first[0]]), "2": float(of_vocabulary[second[0]])}
    assert chosen.log_probabilities == pytest.approx(expected, abs=1e-5)
    assert chosen.text == max(expected, key=lambda choice: expected[choice])
    assert sum(map(math.exp, chosen.log_probabilities.values())) < 1


def test_samples_follow_from_their_seed_alone(writer: LocalModel) -> None:
    drawn = [asked(number % 2, temperature=1.0, seed=number // 2) for number in range(6)]
    texts = [each.text for each in writer.write([*drawn, asked(0)])]
    assert [writer.write([request])[0].text for request in drawn] == texts[:6]
    assert len(set(texts[::2])) > 1
    assert texts[6] == alone(writer, asked(0))


def test_a_request_that_can_not_be_encoded_fails_alone(writer: LocalModel, tmp_path: Path) -> None:
    missing = Request([Message("user", (Image(tmp_path / "gone.png"), "what?"))], max_tokens=4, group=1)
    written = writer.write([replace(asked(0), group=1, max_tokens=4), missing, asked(2)])
    assert [each.ending == "failed" for each in written] == [False, True, False]
    gone = tmp_path / "gone.png"
    assert written[1] == Completion.failed(f"images: can't read {gone}: No such file or directory")


def test_a_prompt_over_the_models_window_fails_and_says_so(directory: Path) -> None:
    writer = LocalModel(model=str(directory), backbone="qwen-vl", max_tokens=100)
    short, long = (
        Request([Message("user", (tiny.sentence(1, num_words),))], max_tokens=4) for num_words in (2, 100)
    )
    written = writer.write([short, long])
    assert written[0].ending != "failed"
    assert written[1].reason.endswith("max_tokens is 100 (the prompt leaves no room)")


def test_a_reward_model_is_refused(directory: Path, tmp_path: Path) -> None:
    model = RewardModel.build(
        backbone=Component("qwen-vl", {"model": str(directory)}), paradigm=Component("generative")
    )
    model.save(tmp_path / "judge")
    with pytest.raises(ConfigError, match=f"{tmp_path / 'judge'} is a reward model, which writes by itself"):
        LocalModel(model=str(tmp_path / "judge"), backbone="qwen-vl")


def test_a_request_is_the_same_only_where_all_that_decides_its_text_is() -> None:
    base = asked(1)
    other_image = Message("user", (Image(tiny.image(84, 56, 2)), *base.messages[0].content[1:]))
    others = [
        asked(2),
        replace(base, beginning="a"),
        replace(base, max_tokens=13),
        replace(base, temperature=0.5),
        replace(base, temperature=0.5, seed=1),
        replace(base, choices=("1", "2")),
        replace(base, messages=[other_image]),
    ]
    assert len({request.identity() for request in [base, *others]}) == 1 + len(others)
    assert replace(base, group=3, seed=1).identity() == base.identity()


def test_comparisons_are_judged_together_as_each_alone(directory: Path) -> None:
    torch.manual_seed(0)
    model = RewardModel.build(
        backbone=Component("qwen-vl", {"model": str(directory)}),
        paradigm=Component("generative", {"template": "reasoned", "max_answer_tokens": 6, "num_votes": 2}),
    )
    model.paradigm.eval()
    rows = [
        Comparison(
            "what?",
            ["a cat", "the dog runs", "red"][: 2 + number % 2],
            images=[tiny.image(84, 56, number)],
        )
        for number in range(3)
    ]
    together = model.paradigm._texts([model.paradigm.prepare(row) for row in rows])
    assert together == [model.paradigm._texts([model.paradigm.prepare(row)])[0] for row in rows]
