"""The losses are as the docstrings say, ratings are read or refused, contradictions raise variances."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from basereward_multi_objective.heads import Gated
from basereward_multi_objective.ratings import ratings_of

from basereward import Comparison, RewardModel
from basereward.config import Component
from basereward.data.published.ratings import HelpSteer
from basereward.errors import ConfigError, DataError
from basereward.forest import Tree, pack

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
    # One response of two has one rating; the comparison's weight is in loss and denominator alike.
    expected = bare.paradigm.loss([row]).loss.item() + 2.0 * (rating - 0.5) ** 2 / 2
    found = model.paradigm.loss([row])
    assert found.loss.item() == pytest.approx(expected, rel=1e-5)
    assert found.weight.item() == 2 * 3.0


@pytest.mark.parametrize(
    ("head", "paradigm", "options"),
    [(GATED, "multi-objective", {}), (Component("uncertain", {}), "uncertain", {"rating_weight": 0.5})],
    ids=["multi-objective", "uncertain"],
)
def test_ratings_of_ties_count_alike_alone_and_beside_other_rows(
    head: Component, paradigm: str, options: dict[str, Any]
) -> None:
    tie = Comparison("p", ["a", "b"], ratings=[3, 3], meta={"attributes": [{"warmth": 3}, {"warmth": 3}]})
    win = Comparison("q", ["a", "b"], ratings=[3, 1], meta={"attributes": [{"warmth": 3}, {"warmth": 1}]})
    model = build(head, paradigm, **options)
    alone = [model.paradigm.loss([row]) for row in (tie, win)]
    together = model.paradigm.loss([tie, win])
    assert alone[0].loss > 0
    summed = sum((output.loss * output.weight).item() for output in alone)
    assert (together.loss * together.weight).item() == pytest.approx(summed, rel=1e-5)


def test_with_ratings_detached_ranks_move_the_gate_alone_and_ratings_all_else() -> None:
    def moved(row: Comparison, **options: Any) -> set[str]:
        model = build(GATED, "multi-objective", detach_ratings=True, **options)
        model.paradigm.loss([row]).loss.backward()
        parameters = model.paradigm.named_parameters()
        return {
            name.rpartition(".")[0]
            for name, value in parameters
            if value.grad is not None and value.grad.any()
        }

    assert moved(Comparison("p", ["a", "b"], ranks=[0, 1])) == {"head.gate.0", "head.gate.2"}
    by_ratings = moved(
        Comparison("p", ["a", "b"], ranks=[0, 0], meta={"attributes": [{"warmth": 1.0}, None]})
    )
    assert "head.ratings_of" in by_ratings
    assert any(name.startswith("backbone.") for name in by_ratings)
    assert not any(name.startswith("head.gate") for name in by_ratings)


def test_decorrelating_takes_out_of_each_attribute_what_goes_with_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = Gated(8, attributes=("help", "length", "tone"), gate_width=4)
    length = torch.randn(50)
    ratings = torch.stack([2 * length + torch.randn(50), length, -3 * length + torch.randn(50)], 1)
    head.decorrelate(ratings, "length")
    mixed = ratings @ head.mixture
    assert torch.equal(mixed[:, 1], length)
    correlations = torch.corrcoef(mixed.T)
    torch.testing.assert_close(correlations[1], torch.tensor([0.0, 1.0, 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(head.reward(ratings, torch.full((50, 3), 1 / 3)), mixed.mean(1))

    rows = [Comparison(f"say {n}", [f"{n} yes", f"{n} no, never"]) for n in range(6)]
    model = build(GATED, "multi-objective")
    before = model.score(rows)
    model.paradigm.decorrelate(rows, "brevity")
    assert model.score(rows) != before
    model.save(tmp_path / "model")
    loaded = RewardModel.load(tmp_path / "model")
    assert loaded.score(rows) == model.score(rows)
    # Their ratings stay what they were; what is left of warmth in rewards no longer goes with brevity.
    explained = [response for row in rows for response in loaded.paradigm.explain(row)]
    found = torch.tensor([list(response["ratings"].values()) for response in explained])
    assert torch.corrcoef((found @ loaded.head.mixture).T)[0, 1].abs() < 1e-3
    [taken] = [response["reward"] for response in loaded.paradigm.explain(Comparison("p", ["a"]))]
    assert [taken] == pytest.approx(loaded.score([Comparison("p", ["a"])])[0], abs=1e-6)


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


def test_ratings_have_the_gaussian_likelihood() -> None:
    model = build(Component("uncertain", {}), "uncertain", rating_weight=0.5)
    bare = build(Component("uncertain", {}), "uncertain")
    row = Comparison("p", ["a", "b"], ratings=[3.0, -1.0], weight=2.0)
    mean, variance = (values.double() for values in model.paradigm.distribution(row))
    likelihood = torch.distributions.Normal(mean, variance.sqrt()).log_prob(
        torch.tensor([3.0, -1.0]).double()
    )
    # The constant log(2 pi) / 2 teaches nothing and is left out. The mean is over two responses of one pair.
    unlikely = -likelihood.sum().item() - math.log(2 * math.pi)
    expected = (bare.paradigm.loss([row]).loss.item() + 0.5 * unlikely) / 2
    assert model.paradigm.loss([row]).loss.item() == pytest.approx(expected, rel=1e-5)
    # Rows without ratings are pairs alone.
    [pair] = [Comparison("p", ["a", "b"], ranks=[0, 1])]
    assert model.paradigm.loss([pair]).loss.item() == pytest.approx(
        bare.paradigm.loss([pair]).loss.item() / 2
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_far_out_an_uncertain_loss_and_its_gradients_are_finite(sign: float) -> None:
    model = build(Component("uncertain", {}), "uncertain", rating_weight=1.0)
    model.head.mean.weight.data *= sign * 1e5
    model.head.spread[2].bias.data.fill_(-100.0)  # as sure as it can be
    row = Comparison("p", ["a", "b"], ratings=[2.0, 1.0])
    assert model.paradigm.distribution(row).mean.abs().max() > 1e4
    output = model.paradigm.loss([row])
    output.loss.backward()
    assert output.loss.isfinite()
    for parameter in model.paradigm.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


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
    assert ratings_of(row, model.head.attributes).tolist() == [list(ratings) for ratings in rated.values()]
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
            lambda: build(Component("uncertain", {}), "uncertain", rating_weight=-1.0),
            "paradigm 'uncertain': rating_weight is a finite number >= 0, not -1.0",
        ),
        (
            lambda: build(GATED, "multi-objective", attribute_weight=-1.0),
            "paradigm 'multi-objective': attribute_weight is a finite number >= 0, not -1.0",
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


def test_decorrelating_needs_an_attribute_that_differs() -> None:
    head = Gated(8, attributes=("a", "b"), gate_width=4)
    with pytest.raises(ValueError, match=r"^there is no attribute 'c'; attributes: a, b$"):
        head.decorrelate(torch.randn(3, 2), "c")
    message = r"^a is the same for all of 3 responses; more are needed$"
    with pytest.raises(ValueError, match=message):
        head.decorrelate(torch.ones(3, 2), "a")
