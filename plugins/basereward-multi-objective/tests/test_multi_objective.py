"""Attributes are learnt from ratings, the gate from what is asked, and variances from contradictions."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from basereward_multi_objective.heads import Gated

from basereward import Comparison, RewardModel
from basereward.config import Component
from basereward.data.ratings import HelpSteer
from basereward.errors import ConfigError, DataError
from basereward.forest import Tree, pack

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
ATTRIBUTES = ["brevity", "warmth"]
GATED = Component("gated", {"attributes": ATTRIBUTES, "gate_width": 16})


def build(head: Component, paradigm: str, **options: Any) -> RewardModel:
    torch.manual_seed(0)
    return RewardModel.build(backbone=Component("tiny", {}), head=head, paradigm=Component(paradigm, options))


def train(model: RewardModel, rows: Sequence[Comparison], steps: int, lr: float = 3e-3) -> None:
    optimizer = torch.optim.Adam(model.paradigm.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        model.paradigm.loss(rows).loss.backward()
        optimizer.step()


# Two ways to answer, each good in one way; what is asked decides which is better.
SHORT, WARM = "ok", "thank you so"
RATED = [{"brevity": 1.0, "warmth": -1.0}, {"brevity": -1.0, "warmth": 1.0}]


def asked(kind: str, number: int, *, rated: bool = True) -> Comparison:
    return Comparison(
        f"{kind} {number}",
        [SHORT, WARM],
        ranks=[0, 1] if kind == "hurry" else [1, 0],
        meta={"attributes": RATED} if rated else {},
    )


ROWS = [asked(kind, number) for kind in ("hurry", "comfort") for number in range(6)]


def test_the_head_learns_attributes_and_the_gate_what_is_asked(tmp_path: Path) -> None:
    model = build(GATED, "multi-objective")
    train(model, ROWS, 150)
    for kind, attribute in (("hurry", "brevity"), ("comfort", "warmth")):
        row = asked(kind, 9, rated=False)
        short, warm = model.paradigm.explain(row)
        assert short["ratings"] == pytest.approx(RATED[0], abs=0.3)
        assert warm["ratings"] == pytest.approx(RATED[1], abs=0.3)
        assert short["weights"] == warm["weights"]
        assert short["weights"][attribute] > 0.8
        [rewards] = model.score([row])
        assert rewards == pytest.approx([short["reward"], warm["reward"]], abs=1e-5)
    model.save(tmp_path / "model")
    assert RewardModel.load(tmp_path / "model").score(ROWS) == model.score(ROWS)


def test_the_gate_reads_the_prompt_alone_wherever_it_lies() -> None:
    torch.manual_seed(0)
    head = Gated(8, attributes=("a", "b"), gate_width=4)
    trees = [
        Tree.of_text([1, 2, 3], [[4], [5, 6]]),
        Tree.of_text([7], [[8, 9]]),
        Tree.of_text([1, 1], [[2]] * 3),
    ]
    table = torch.randn(10, 8)
    found = []
    for forest in (pack(trees, pad=0), pack(trees, pad=0, row_tokens=99), pack(trees, pad=0, shared=False)):
        hidden = table[forest.input_ids]
        found.append(head.weights(hidden, forest))
    expected = (head.gate(table[[3, 3, 7, 1, 1, 1]]) / head.temperature).softmax(-1)
    for weights in found:
        torch.testing.assert_close(weights, expected)
        torch.testing.assert_close(weights.sum(1), torch.ones(6))


def test_missing_ratings_count_for_nothing() -> None:
    model = build(GATED, "multi-objective", attribute_weight=2.0)
    row = Comparison("p", ["a", "b"], ranks=[0, 1], weight=3.0, meta={"attributes": [{"warmth": 0.5}, None]})
    bare = build(GATED, "multi-objective", attribute_weight=0.0)
    [rating] = [model.paradigm.explain(row)[0]["ratings"]["warmth"]]
    # One response of one pair has one rating; the comparison's weight is in loss and denominator alike.
    expected = bare.paradigm.loss([row]).loss.item() + 2.0 * (rating - 0.5) ** 2
    assert model.paradigm.loss([row]).loss.item() == pytest.approx(expected, rel=1e-5)


def test_with_ratings_detached_pairs_move_the_gate_alone() -> None:
    model = build(GATED, "multi-objective", detach_ratings=True)
    model.paradigm.loss([asked("hurry", 1, rated=False)]).loss.backward()
    moved = {
        name for name, value in model.head.named_parameters() if value.grad is not None and value.grad.any()
    }
    assert moved == {"gate.0.weight", "gate.0.bias", "gate.2.weight", "gate.2.bias"}


def test_contradictions_raise_the_variance_of_what_they_are_about(tmp_path: Path) -> None:
    def pair(chosen: str, rejected: str) -> Comparison:
        return Comparison("p", [chosen, rejected], ranks=[0, 1])

    # "good" beats "bad" always; "odd" beats each of them as often as not, so no mean of it can be right.
    contradictions = [pair("good", "odd"), pair("odd", "good"), pair("bad", "odd"), pair("odd", "bad")]
    model = build(Component("uncertain", {}), "uncertain")
    train(model, [*[pair("good", "bad")] * 4, *contradictions], 200)
    torn = [Comparison("p", ["good", "bad", "odd"])]
    found = model.paradigm.distribution(torn[0])
    good, bad, odd = found.variance.tolist()
    assert odd > 5 * max(good, bad)
    model.save(tmp_path / "model")
    assert RewardModel.load(tmp_path / "model").score(torn) == model.score(torn)
    # What is taken off for the doubt.
    model.head.aversion = 2.0
    [rewards] = model.score([torn[0]])
    assert rewards == pytest.approx((found.mean - 2 * found.variance.sqrt()).tolist(), abs=1e-5)


def test_the_probability_of_a_pair_is_the_normal_one() -> None:
    model = build(Component("uncertain", {}), "uncertain")
    row = Comparison("p", ["a", "b"], ranks=[0, 1])
    mean, variance = model.paradigm.distribution(row)
    z = (mean[0] - mean[1]) / variance.sum().sqrt()
    expected = -math.log(0.5 * (1 + math.erf(z.item() / math.sqrt(2))))
    assert model.paradigm.loss([row]).loss.item() == pytest.approx(expected, rel=1e-5)


def test_helpsteer_brings_its_attributes(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    rated = {"a": (3, 4, 4, 1, 2), "b": (1, 0, 4, 1, 0)}
    rows = [
        {"prompt": "p", "response": response, **dict(zip(names, ratings, strict=True))}
        for response, ratings in rated.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    [row] = HelpSteer(path)
    model = build(Component("gated", {}), "multi-objective")
    prepared = model.paradigm.prepare(row)
    assert prepared.ratings.tolist() == [list(ratings) for ratings in rated.values()]
    assert model.paradigm.loss([row]).loss.isfinite()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ([{}], "meta.attributes: a list of 2 tables is needed, of numbers by attribute, or null; not [{}]"),
        ([{"warmth": "hot"}, None], "meta.attributes[0].warmth: a finite number is needed, not 'hot'"),
        ([None, {"warmth": math.inf}], "meta.attributes[1].warmth: a finite number is needed, not inf"),
    ],
)
def test_wrong_ratings_are_errors_of_their_row(attributes: Any, message: str) -> None:
    model = build(GATED, "multi-objective")
    with pytest.raises(DataError) as error:
        model.paradigm.prepare(Comparison("p", ["a", "b"], meta={"attributes": attributes}))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: build(Component("mlp", {}), "multi-objective"),
            "multi-objective needs the head gated, not MLP",
        ),
        (lambda: build(Component("mlp", {}), "uncertain"), "uncertain needs the head uncertain, not MLP"),
        (
            lambda: build(Component("gated", {"attributes": ["a", "a"]}), "multi-objective"),
            "head 'gated': attributes are different names, one or more; not ['a', 'a']",
        ),
        (
            lambda: build(Component("gated", {"temperature": 0.0}), "multi-objective"),
            "head 'gated': temperature is a finite number > 0, not 0.0",
        ),
        (
            lambda: build(Component("uncertain", {"aversion": -1.0}), "uncertain"),
            "head 'uncertain': aversion is a finite number >= 0, not -1.0",
        ),
    ],
)
def test_what_cant_be_is_refused(make: Callable[[], RewardModel], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value) == message


def test_the_run_files_of_the_readme_build() -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    for block in blocks:
        tables = tomllib.loads(block)
        parts = {kind: Component(table.pop("name"), table) for kind, table in tables.items()}
        RewardModel.build(backbone=Component("tiny", {}), **parts)
