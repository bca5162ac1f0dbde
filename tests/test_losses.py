import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from basereward import Comparison
from basereward.errors import DataError, PluginError
from basereward.losses import STATISTICS, BradleyTerry, Hinge, PlackettLuce, Regression, Targets, apply_loss

LOSSES = {
    "bradley-terry": BradleyTerry(),
    "bradley-terry, half ties": BradleyTerry(ties="half", label_smoothing=0.1, zero_coefficient=0.01),
    "bradley-terry, lengths": BradleyTerry(length_normalize=True, margin=True),
    "hinge": Hinge(),
    "hinge, half ties": Hinge(margin=0.5, ties="half"),
    "plackett-luce": PlackettLuce(),
    "plackett-luce, breslow": PlackettLuce(ties="breslow"),
    "regression": Regression(rating_mean=2.0, rating_std=1.5),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture
def comparisons():
    return [
        Comparison("which?", ["a", "b", "c"], ratings=[1.0, 3.0, 1.0]),
        Comparison("what?", ["a", "b"], ranks=[1, 0], weight=2.0),
        Comparison("who?", ["a", "b"], ratings=[4.0, 4.5], weight=0.5),
    ]


LENGTHS = [3, 40, 5, 600, 7, 8, 90]


def values(output):
    return dict(zip(STATISTICS, output.sums.tolist(), strict=True))


def test_targets_number_the_responses_through(comparisons):
    targets = Targets.of(comparisons, lengths=LENGTHS)
    assert targets.pairs.tolist() == [[1, 0], [0, 2], [1, 2], [4, 3], [6, 5]]
    assert targets.tie.tolist() == [False, True, False, False, False]
    assert targets.margin.tolist() == [2, 0, 2, 0, 0.5]
    assert targets.weight.tolist() == [1, 1, 1, 2, 0.5]
    assert targets.comparison_weight.tolist() == [1, 2, 0.5]
    assert targets.lengths.tolist() == LENGTHS
    assert targets.ranks.tolist() == [1, 0, 1, 1, 0, 1, 0]
    assert targets.group.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert_close(
        targets.ratings, torch.tensor([1, 3, 1, math.nan, math.nan, 4, 4.5]), equal_nan=True, rtol=0, atol=0
    )


def test_targets_leave_out_what_nothing_is_known_of():
    targets = Targets.of([Comparison("what?", ["a", "b"], ranks=[1, 0])])
    assert (targets.margin, targets.weight, targets.comparison_weight, targets.ratings, targets.lengths) == (
        None,
    ) * 5


def test_targets_of_nothing_are_empty():
    targets = Targets.of([])
    assert targets.pairs.shape == (0, 2)
    assert targets.num_comparisons == 0


def test_a_comparison_without_ranks_has_no_targets():
    with pytest.raises(DataError) as caught:
        Targets.of([Comparison("what?", ["a", "b"])])
    assert str(caught.value) == "ranks: the comparison has no ranks, so no response is known to be better"


@every_loss
def test_losses_of_batches_add_up_to_the_loss_of_all(loss, comparisons):
    rewards = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = loss(rewards, Targets.of(comparisons, LENGTHS))
    first = loss(rewards[:3], Targets.of(comparisons[:1], LENGTHS[:3]))
    rest = loss(rewards[3:], Targets.of(comparisons[1:], LENGTHS[3:]))
    assert_close(first.weight + rest.weight, whole.weight)
    assert_close(first.loss * first.weight + rest.loss * rest.weight, whole.loss * whole.weight)
    sums = first.sums + rest.sums
    low, high = STATISTICS.index("min"), STATISTICS.index("max")
    sums[low], sums[high] = min(first.sums[low], rest.sums[low]), max(first.sums[high], rest.sums[high])
    assert_close(sums, whole.sums)


@every_loss
def test_the_weight_is_the_statistics_first_entry(loss, comparisons):
    output = loss(torch.randn(7), Targets.of(comparisons, LENGTHS))
    assert values(output)["weight"] == output.weight.item()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_losses_are_fp32_whatever_autocast_says(loss, dtype, comparisons):
    rewards = torch.randn(7).to(dtype).requires_grad_()
    targets = Targets.of(comparisons, LENGTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = loss(rewards, targets)
    output.loss.backward()
    assert (output.loss.dtype, output.weight.dtype, output.sums.dtype) == (
        torch.float32,
        torch.float32,
        torch.float64,
    )
    assert rewards.grad.dtype == dtype
    wanted = loss(rewards.detach().double(), targets)
    assert_close(output.loss.double(), wanted.loss, rtol=1e-5, atol=1e-6)


@every_loss
def test_gradients_equal_finite_differences(loss, comparisons):
    targets = Targets.of(comparisons, LENGTHS)
    rewards = torch.randn(
        7, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda r: loss(r, targets).loss, rewards)


@every_loss
def test_all_weights_zero_is_a_loss_of_zero_with_zero_gradients(loss):
    comparison = Comparison("what?", ["a", "b"], ratings=[1, 2], weight=0)
    rewards = torch.randn(2, requires_grad=True)
    output = loss(rewards, Targets.of([comparison], [2, 3]))
    output.loss.backward()
    assert output.loss.item() == 0
    assert rewards.grad.tolist() == [0, 0]


@every_loss
def test_an_empty_batch_is_a_loss_of_zero(loss):
    output = loss(torch.zeros(0, requires_grad=True), Targets.of([], []))
    output.loss.backward()
    assert (output.loss.item(), output.weight.item()) == (0, 0)


@every_loss
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_rewards_stay_finite(loss, size, comparisons):
    rewards = torch.tensor([size, -size, 0, size, -size, size, -size], requires_grad=True)
    output = loss(rewards, Targets.of(comparisons, LENGTHS))
    output.loss.backward()
    assert output.loss.isfinite()
    assert rewards.grad.isfinite().all()


RANKING = [name for name in LOSSES if name not in ("regression", "bradley-terry, half ties")]


@pytest.mark.parametrize("loss", [LOSSES[name] for name in RANKING], ids=RANKING)
@settings(max_examples=30, deadline=None)
@given(start=st.floats(-5, 5), step=st.floats(0, 5))
def test_a_ranking_loss_never_rises_as_the_margin_grows(loss, start, step):
    targets = Targets.of([Comparison("what?", ["a", "b"], ratings=[2, 1])], [5, 5])
    smaller, larger = (
        loss(torch.tensor([reward, 0.0], dtype=torch.float64), targets).loss
        for reward in (start, start + step)
    )
    assert larger <= smaller


def test_bradley_terry_uses_margins_only_if_asked(comparisons):
    targets = Targets.of(comparisons[2:])  # ratings 4 and 4.5, chosen last
    rewards = torch.tensor([1.0, 3.0])
    assert BradleyTerry()(rewards, targets).loss.item() == pytest.approx(math.log1p(math.exp(-2)))
    assert BradleyTerry(margin=True)(rewards, targets).loss.item() == pytest.approx(
        math.log1p(math.exp(-1.5))
    )


def test_length_normalisation_without_lengths_is_an_error(comparisons):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        BradleyTerry(length_normalize=True)(torch.zeros(7), Targets.of(comparisons))
    assert str(caught.value) == "length_normalize needs Targets with lengths, the tokens of each response"


def test_hinge_costs_what_the_margin_lacks():
    targets = Targets.of([Comparison("what?", ["a", "b", "c"], ranks=[0, 1, 1])])
    rewards = torch.tensor([1.0, 0.75, -2.0])
    # Pairs (a, b), (a, c) and the tie (b, c): 1 - 0.25, 0, and |2.75| / 2 if ties count.
    assert Hinge()(rewards, targets).loss.item() == pytest.approx(0.75 / 2)
    assert Hinge(ties="half")(rewards, targets).loss.item() == pytest.approx((0.75 + 2.75 / 2) / 3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=2, max_size=2))
def test_plackett_luce_of_two_is_bradley_terry(rewards):
    targets = Targets.of([Comparison("what?", ["a", "b"], ranks=[1, 0])])
    rewards = torch.tensor(rewards, dtype=torch.float64)
    assert_close(PlackettLuce()(rewards, targets).loss, BradleyTerry()(rewards, targets).loss)


def test_plackett_luce_probabilities_of_all_rankings_sum_to_one():
    rewards = torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64)
    total = sum(
        math.exp(-PlackettLuce()(rewards, Targets.of([Comparison("what?", list("abcd"), ranks=order)])).loss)
        for order in itertools.permutations(range(4))
    )
    assert total == pytest.approx(1)


def test_plackett_luce_ties():
    targets = Targets.of([Comparison("what?", ["a", "b", "c"], ranks=[0, 0, 1])])
    rewards = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)

    def drawn_before(*others):  # -log of the probability of a reward of 0, against others
        return math.log1p(sum(math.exp(other) for other in others))

    ignored = drawn_before(-1.0) + drawn_before(-0.5)
    assert PlackettLuce()(rewards, targets).loss.item() == pytest.approx(ignored)
    breslow = drawn_before(-0.5, -1.0) + drawn_before(0.5, -0.5)
    assert PlackettLuce(ties="breslow")(rewards, targets).loss.item() == pytest.approx(breslow)


def test_regression_skips_responses_without_rating(comparisons):
    rewards = torch.tensor([1.0, 2.0, 3.0, 100.0, -100.0, 4.0, 5.0], requires_grad=True)
    output = Regression()(rewards, Targets.of(comparisons))
    # Ratings 1, 3, 1 of weight 1 and 4, 4.5 of weight 0.5.
    assert output.weight.item() == 4
    assert output.loss.item() == pytest.approx((0 + 1 + 4 + 0.5 * (0 + 0.25)) / 4)
    output.loss.backward()
    assert rewards.grad[3:5].tolist() == [0, 0]


def test_regression_of_comparisons_without_ratings_is_zero():
    output = Regression()(torch.ones(2), Targets.of([Comparison("what?", ["a", "b"], ranks=[0, 1])]))
    assert (output.loss.item(), output.weight.item()) == (0, 0)


def test_regression_scales_ratings():
    targets = Targets.of([Comparison("what?", ["a", "b"], ratings=[1, 5])])
    rewards = torch.tensor([-1.0, 1.0])
    assert Regression(rating_mean=3.0, rating_std=2.0)(rewards, targets).loss.item() == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: BradleyTerry(label_smoothing=0.7),
            "label_smoothing is a probability from 0 to 0.5, not 0.7",
        ),
        (lambda: BradleyTerry(zero_coefficient=-0.1), "zero_coefficient is a finite number >= 0, not -0.1"),
        (lambda: Hinge(margin=math.inf), "margin is a finite number >= 0, not inf"),
        (lambda: Regression(rating_std=0.0), "rating_std is a finite number > 0, not 0.0"),
    ],
)
def test_options_out_of_range_are_named(build, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        build()
    assert str(caught.value) == message


class Costs(nn.Module):
    """Gives what it is told to make of the costs of pairs."""

    learns_from_ties = False

    def __init__(self, reduce):
        super().__init__()
        self.reduce = reduce

    def forward(self, rewards, targets):
        chosen, rejected = rewards[targets.pairs].unbind(1)
        return self.reduce(nn.functional.softplus(rejected - chosen))


@pytest.mark.parametrize("kind", ["costs", "mean"])
def test_a_bare_tensor_is_the_cost_of_each_pair_or_their_mean(kind):
    # Two pairs of weights 1 and 3, and a tie, which counts nothing.
    rows = [
        Comparison("a", ["x", "y"], ranks=[0, 1]),
        Comparison("b", ["x", "y"], ranks=[0, 1], weight=3.0),
        Comparison("c", ["x", "y"], ranks=[0, 0]),
    ]
    targets = Targets.of(rows)
    rewards = torch.tensor([1.0, 0.0, 0.0, 2.0, 5.0, 1.0])
    mean = (nn.functional.softplus(torch.tensor(-1.0)) + 3 * nn.functional.softplus(torch.tensor(2.0))) / 4
    loss = Costs((lambda costs: costs) if kind == "costs" else lambda costs: mean)
    output = apply_loss(loss, rewards, targets)
    expected = BradleyTerry()(rewards, targets)
    assert torch.allclose(output.loss, mean)
    assert torch.allclose(output.loss, expected.loss)
    assert output.weight == expected.weight == 4
    assert torch.allclose(output.sums, expected.sums)


@pytest.mark.parametrize(
    ("value", "returned"),
    [(0.5, "a float"), (torch.zeros(2, 2), r"a Tensor of shape \[2, 2\]"), (None, "a NoneType")],
)
def test_a_loss_that_returns_something_else_is_one_sentence(value, returned):
    targets = Targets.of([Comparison("a", ["x", "y"], ranks=[0, 1])])
    message = (
        rf"loss Costs returned {returned}; return a LossOutput, or a tensor: the mean over pairs \[\], or the"
    )
    with pytest.raises(PluginError, match=message):
        apply_loss(Costs(lambda costs: value), torch.tensor([1.0, 0.0]), targets)
