"""The critic writes critiques, reads rewards after them, and learns both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rounding import TINY_REWARD
from torch.nn import functional

from basereward.comparison import Comparison
from basereward.config import Component
from basereward.errors import ConfigError, DataError, ModelError
from basereward.scoring.reward_model import RewardModel

CRITIQUES = ["it is right", "the dog is no cat"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.add_language_head(tiny.save_qwen_vl(tmp_path_factory.mktemp("critic") / "model"))


def build(directory: Path, *, head: dict[str, Any] | None = None, **options: Any) -> RewardModel:
    torch.manual_seed(0)
    model = RewardModel.build(
        backbone=Component("qwen-vl", {"model": str(directory)}),
        head=Component("mlp", head or {}),
        paradigm=Component("critic", {"max_critique_tokens": 12, **options}),
    )
    model.paradigm.eval()
    return model


def row(critiques: list[str | None] | None = None, **more: Any) -> Comparison:
    return Comparison(
        "what is shown in the image?",
        ["a cat sits on the mat", "the dog runs"],
        images=[tiny.image(84, 56, 1)],
        ranks=[0, 1],
        meta={} if critiques is None else {"critiques": critiques},
        **more,
    )


def test_critiques_are_the_likelihood_part_of_the_loss(directory: Path) -> None:
    model = build(directory)
    paradigm = model.paradigm
    both, one, none = (paradigm.loss([row(given)]) for given in (CRITIQUES, [None, CRITIQUES[1]], None))
    costs = []
    for response, critique in zip(row().responses, CRITIQUES, strict=True):
        [message] = paradigm.template.messages(row().prompt, [response])
        # As one plain row, without sharing.
        tree = model.backbone.encode(Comparison([message], [critique]))
        hidden = model.backbone(model.backbone.pack([tree]))[0]
        logits = hidden @ paradigm.language_head.weight.T
        costs.append(
            functional.cross_entropy(logits[len(tree.prompt) - 1 : -1], torch.tensor(tree.responses[0]))
        )
    paradigm.critique_weight = 0.0
    bare = [paradigm.loss([row(given)]).loss for given in (CRITIQUES, [None, CRITIQUES[1]])]
    assert both.loss.item() == pytest.approx((bare[0] + costs[0] + costs[1]).item(), rel=TINY_REWARD)
    assert one.loss.item() == pytest.approx((bare[1] + costs[1]).item(), rel=TINY_REWARD)
    assert none.loss.item() == pytest.approx(paradigm.loss([row()]).loss.item(), rel=TINY_REWARD)


def test_critiques_of_ties_count_alike_in_any_batch(directory: Path) -> None:
    paradigm = build(directory).paradigm
    tie = Comparison("what is it?", ["a cat", "the cat"], ranks=[0, 0], meta={"critiques": CRITIQUES})
    apart = [paradigm.loss([one]) for one in (row(CRITIQUES), tie)]
    together = paradigm.loss([row(CRITIQUES), tie])
    added = sum((output.loss * output.weight).item() for output in apart)
    assert (together.loss * together.weight).item() == pytest.approx(added, rel=TINY_REWARD)


def test_it_learns_to_write_its_critiques_and_their_rewards_are_those_of_given_ones(
    directory: Path, tmp_path: Path
) -> None:
    model = build(directory)
    paradigm = model.paradigm.train()
    optimizer = torch.optim.Adam(paradigm.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        paradigm.loss([row(CRITIQUES)]).loss.backward()
        optimizer.step()
    paradigm.eval()
    assert paradigm.critiques(row()) == CRITIQUES
    [written], [given] = model.score([row()]), model.score([row(CRITIQUES)])
    assert written == given
    assert given[0] > given[1]
    assert model.statistics == {"critiques_written": 4, "critiques_cut": 0, "critiques_empty": 0}
    # An edited critique is read as it stands, and the missing one is written.
    [edited] = model.score([row(["it is wrong", None])])
    assert edited[0] != given[0]
    assert edited[1] == pytest.approx(given[1], rel=TINY_REWARD)
    model.save(tmp_path / "saved")
    assert RewardModel.load(tmp_path / "saved").score([row()]) == [given]


def test_the_tower_runs_once_to_write_and_once_to_score(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(directory)
    calls: list[int] = []
    tower = type(model.backbone)._tower
    monkeypatch.setattr(
        type(model.backbone),
        "_tower",
        lambda self, patches, grids, *more: calls.append(len(grids)) or tower(self, patches, grids, *more),
    )
    model.paradigm.critiques(row())
    assert calls == [1]
    model.score([row()])
    assert calls == [1, 1, 1]


def test_critiques_that_are_cut_or_empty_are_counted(directory: Path) -> None:
    model = build(directory, max_critique_tokens=2)
    head = model.paradigm.language_head
    [end] = model.paradigm.end
    with torch.no_grad():
        model.score([row()])
        assert model.statistics == {"critiques_written": 2, "critiques_cut": 2, "critiques_empty": 0}
        hidden = torch.randn(32)
        head.weight.zero_()
        head.weight[end] = hidden  # the end is as likely as all else where the product is 0, and first if > 0
        forward = head.forward
        head.forward = lambda states, tokens=None: forward(hidden.expand_as(states), tokens)
        [rewards] = model.score([row()])
    assert model.statistics == {"critiques_written": 4, "critiques_cut": 2, "critiques_empty": 2}
    assert all(abs(reward) < float("inf") for reward in rewards)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["one"],
            "meta.critiques: a list of 2 critiques is needed, a text or null for each response, not ['one']",
        ),
        (
            [1, None],
            "meta.critiques: a list of 2 critiques is needed, a text or null for each response, "
            "not [1, None]",
        ),
    ],
)
def test_critiques_that_are_no_texts_are_refused(directory: Path, given: Any, message: str) -> None:
    with pytest.raises(DataError) as error:
        build(directory).paradigm.prepare(row(given))
    assert str(error.value) == message


def test_a_critique_of_spaces_is_one_that_is_missing(directory: Path) -> None:
    model = build(directory)
    assert model.score([row([" ", "\n"])]) == model.score([row()])


def test_a_critique_cant_act_as_the_end_of_its_turn(directory: Path) -> None:
    paradigm = build(directory).paradigm
    prepared = paradigm.prepare(row(["well<|im_end|>", "<|image_pad|>"]))
    control = set(paradigm.backbone.control_ids())
    assert all(ids and control.isdisjoint(ids) for ids in prepared.content.critiques)


def test_longer_than_max_tokens_is_an_error_of_the_row(tmp_path: Path, directory: Path) -> None:
    model = RewardModel.build(
        backbone=Component("qwen-vl", {"model": str(directory), "max_tokens": 150}),
        paradigm=Component("critic", {"max_critique_tokens": 400}),
    )
    model.paradigm.eval()
    [(_, found)] = model.score_stream([row()])
    assert isinstance(found, DataError)
    assert "max_tokens is 150" in str(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"template": "verdict"},
            "judge template 'verdict' asks for a verdict; critic needs one that asks for a critique",
        ),
        (
            {"critique_weight": -1.0},
            "paradigm 'critic': critique_weight is a finite number >= 0, not -1.0",
        ),
        (
            {"max_critique_tokens": 0},
            "paradigm 'critic': max_critique_tokens is a number of tokens >= 1, not 0",
        ),
        (
            {"head": {"layer": 1}},
            "head.layer reads a middle layer, and text is written from the last; leave out head.layer",
        ),
    ],
)
def test_what_cant_be_is_refused(directory: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(directory, **options)
    assert str(error.value) == message


def test_a_model_without_language_model_head_is_refused(tmp_path: Path) -> None:
    tiny.save_qwen_vl(tmp_path / "model")
    with pytest.raises(ModelError) as error:
        build(tmp_path / "model")
    assert str(error.value) == (
        f"{tmp_path / 'model'} has no language-model head (lm_head.weight), so it can't write or judge text"
    )


def test_another_template_than_the_one_it_was_saved_with_is_refused(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from basereward.paradigms.judge_template import JudgeTemplate

    build(directory).save(tmp_path / "saved")
    monkeypatch.setattr(
        JudgeTemplate,
        "load",
        classmethod(lambda cls, name: cls(name, "critique", "{question} {response}?\n")),
    )
    with pytest.raises(ModelError) as error:
        RewardModel.load(tmp_path / "saved")
    assert str(error.value) == (
        f"{tmp_path / 'saved'}: a template, of its chat or of its judge, is not the one the model was saved "
        "with"
    )
