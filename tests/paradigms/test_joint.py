"""The joint paradigm: responses that see those before them, in orders that are drawn and compared."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from rounding import TINY_GRADIENT, within
from transformers import AutoModel

from basereward import Comparison, RewardModel
from basereward.config import Component
from basereward.forest import Forest, Tree, pack
from basereward.paradigms.joint import chained

TOLERANCE = within(TINY_GRADIENT)
ROW = Comparison("q", ["a cat", "a dog", "no", "a cat and a dog"], ranks=[1, 2, 3, 0])


def model(directory: Path | None = None, **options: object) -> RewardModel:
    torch.manual_seed(0)
    backbone = (
        Component("tiny", {}) if directory is None else Component("causal-lm", {"model": str(directory)})
    )
    built = RewardModel.build(
        backbone=backbone,
        loss=Component("plackett-luce", {}),
        paradigm=Component("joint", dict(options)),
    )
    built.paradigm.eval()
    return built


def turned(comparison: Comparison) -> Comparison:
    ranks = comparison.ranks
    assert ranks is not None
    return comparison.replace(responses=comparison.responses[::-1], ranks=ranks[::-1])


def test_a_response_sees_the_prompt_and_all_responses_before_it() -> None:
    # One prompt token, responses of 2, 1 and 2 tokens in the order 2, 0, 1.
    tree = Tree.of_text([9], [[1, 2], [3], [4, 5]])
    forest = pack([chained(tree, [2, 0, 1])], pad=0)
    assert forest.input_ids.tolist() == [[9, 4, 5, 1, 2, 3]]
    assert forest.ends.tolist() == [2, 4, 5]
    assert forest.lengths.tolist() == [2, 2, 1]
    # The dense mask of the rule: j is visible to i where it is not after it, whatever branch it was of.
    assert forest.visible()[0, 0].int().tolist() == torch.ones(6, 6).tril().int().tolist()


def test_hidden_states_are_exact_against_the_dense_mask(tiny_models: dict[str, Path]) -> None:
    built = model(tiny_models["llama"])
    decoder = AutoModel.from_pretrained(tiny_models["llama"], attn_implementation="eager").eval()
    trees = [built.backbone.encode(row) for row in (ROW, Comparison("what?", ["x", "yy"]))]
    chains = [chained(tree, range(len(tree.responses))) for tree in trees]
    forest = built.paradigm.packed(chains)
    with torch.no_grad():
        states = built.backbone(forest).flatten(0, 1)[forest.ends]
        dense = []
        for chain in chains:
            # transformers' own model on the plain sequence, with a mask that is written out.
            ids = torch.tensor([chain.prompt + chain.responses[0]])
            mask = torch.zeros(ids.shape[1], ids.shape[1]).masked_fill(
                torch.ones(ids.shape[1], ids.shape[1]).triu(1).bool(), float("-inf")
            )
            hidden = decoder(input_ids=ids, attention_mask=mask[None, None]).last_hidden_state[0]
            dense += [hidden[len(chain.prompt) + end] for end in chain.reads[0]]
    torch.testing.assert_close(states, torch.stack(dense), **TOLERANCE)


def test_scores_are_the_mean_over_both_orders() -> None:
    both, given = model(), model(both_orders=False)
    [rewards] = both.score([ROW])
    [first], [second] = given.score([ROW]), given.score([turned(ROW)])
    expected = [(one + other) / 2 for one, other in zip(first, second[::-1], strict=True)]
    torch.testing.assert_close(torch.tensor(rewards), torch.tensor(expected), **TOLERANCE)
    # So the reverse comparison has the reverse scores.
    torch.testing.assert_close(
        torch.tensor(both.score([turned(ROW)])[0][::-1]), torch.tensor(rewards), **TOLERANCE
    )
    pairs = [(one, other) for one in range(4) for other in range(one)]
    consistent = sum(
        (first[one] - first[other]) * (second[3 - one] - second[3 - other]) > 0 for one, other in pairs
    )
    assert both.statistics == {"order_consistency": consistent / 6, "order_pairs": 12.0}
    assert given.statistics == {}


def test_a_reward_depends_on_its_neighbours_and_is_said_to() -> None:
    built = model(both_orders=False)
    assert built.is_comparative
    assert not built.shares_prefix
    [rewards] = built.score([ROW])
    [changed] = built.score([ROW.replace(responses=["a bird", *ROW.responses[1:]])])
    assert rewards[3] != pytest.approx(changed[3], abs=1e-4)
    # The first sees no other one.
    [alone] = built.score([Comparison("q", ROW.responses[:1])])
    torch.testing.assert_close(torch.tensor(rewards[:1]), torch.tensor(alone), **TOLERANCE)


def test_training_draws_orders_by_the_seed() -> None:
    built = model()
    built.paradigm.train()

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        return float(built.paradigm.loss([ROW]).loss.detach())

    losses = [loss(seed) for seed in range(8)]
    assert losses == [loss(seed) for seed in range(8)]
    assert len(set(losses)) > 1
    built.paradigm.eval()
    assert loss(0) == loss(1)


def test_the_loss_is_that_of_rewards_put_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    built = model(both_orders=False)
    built.paradigm.train()
    order = [2, 0, 3, 1]
    monkeypatch.setattr(torch, "randperm", lambda num: torch.tensor(order))
    other = ROW.replace(
        responses=[ROW.responses[number] for number in order], ranks=[(ROW.ranks or ())[at] for at in order]
    )
    drawn = built.paradigm.loss([ROW]).loss
    monkeypatch.setattr(torch, "randperm", torch.arange)
    torch.testing.assert_close(drawn, built.paradigm.loss([other]).loss, **TOLERANCE)


def test_a_comparison_learns_in_a_batch_what_it_learns_alone() -> None:
    built = model(both_orders=False)
    rows = [ROW, Comparison("p", ["x", "yy"], ranks=[0, 1])]
    together = built.score(rows)
    for row, rewards in zip(rows, together, strict=True):
        torch.testing.assert_close(torch.tensor(built.score([row])[0]), torch.tensor(rewards), **TOLERANCE)


def test_images_are_read_once(tiny_models: dict[str, Path]) -> None:
    torch.manual_seed(0)
    built = RewardModel.build(
        backbone=Component("qwen-vl", {"model": str(tiny_models["qwen2_5_vl"])}),
        paradigm=Component("joint", {}),
    )
    shapes: list[Forest] = []
    built.backbone.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0]))
    row = Comparison("<image>What?", ["a", "b"], images=[tiny.image(56, 56, seed=0)])
    assert len(built.score([row])[0]) == 2
    assert [len(forest.spans) for forest in shapes] == [1, 1]  # one sequence in each order
