from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_ops import use_plain_ops
from rounding import rounding_bound
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from basereward import ops
from basereward.ops import reference

# The opcheck of torch 2.14 asks for a gradient that its own clones of the arguments don't have.
torch_warns_of_itself = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
compiled = pytest.mark.skipif(ops.status()["cpu"]["kernels"] != "cpp", reason=ops.status()["cpu"]["reason"])

KERNELS = [pytest.param("cpp", marks=compiled), "torch"]
OPTIONS = {
    "plain": {},
    "margin": {"margin": True},
    "weight": {"weight": True},
    "lengths": {"lengths": True},
    "smoothing": {"label_smoothing": 0.1},
    "zero": {"zero_coefficient": 0.03},
    "ties ignored": {"tie": True},
    "ties half": {"tie": True, "ties": "half"},
    "all": {
        "tie": True,
        "margin": True,
        "weight": True,
        "lengths": True,
        "label_smoothing": 0.1,
        "zero_coefficient": 0.03,
        "ties": "half",
    },
}
SIZES = [
    (0, 0),
    (1, 0),
    (2, 1),
    (3, 31),
    (33, 32),
    (16, 33),
    (255, 257),
    (1000, 511),
    (2000, 4096),
    (77, 40_001),
]


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        use_plain_ops(monkeypatch)
    return request.param


def example(
    num_rewards: int,
    num_pairs: int,
    options: dict[str, Any],
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    rewards = (torch.randn(num_rewards, generator=generator, dtype=torch.float64) * 3).to(dtype)
    pairs = torch.randint(0, max(num_rewards, 1), (num_pairs, 2), generator=generator)
    # Rounded to what fp16 holds, so that both sides read the same numbers.
    uniform = (torch.rand(4, num_pairs, generator=generator) * 64).round() / 64
    given = dict(options)
    if given.pop("tie", False):
        given["tie"] = uniform[0] < 0.2
    if given.pop("margin", False):
        given["margin"] = uniform[1].to(dtype)
    if given.pop("weight", False):
        given["weight"] = torch.where(uniform[2] < 0.1, 0.0, uniform[2]).to(dtype)
    if given.pop("lengths", False):
        given["lengths"] = torch.randint(1, 2000, (num_rewards,), generator=generator)
    return rewards, pairs, given


def expected(rewards: Tensor, pairs: Tensor, given: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """The fp64 reference's loss, gradient and statistics."""
    rewards = rewards.detach().double().requires_grad_()
    loss, statistics = reference.batched_bt_loss(
        rewards,
        pairs,
        given.get("tie"),
        None if given.get("margin") is None else given["margin"].double(),
        None if given.get("weight") is None else given["weight"].double(),
        given.get("lengths"),
        given.get("label_smoothing", 0.0),
        given.get("zero_coefficient", 0.0),
        {"ignore": 0.0, "half": 1.0}[given.get("ties", "ignore")],
    )
    (grad,) = torch.autograd.grad(loss, rewards)
    return loss, grad, statistics


# Every option at an odd size, and every size and dtype with none and with all options.
CASES = [((77, 513), name, torch.float32) for name in OPTIONS]
CASES += [(size, name, torch.float32) for size in SIZES for name in ("plain", "all")]
CASES += [
    (size, name, dtype)
    for size in ((0, 0), (2, 1), (255, 257))
    for name in ("plain", "all")
    for dtype in (torch.float64, torch.bfloat16, torch.float16)
]


@pytest.mark.parametrize(("size", "options", "dtype"), CASES, ids=str)
def test_loss_gradient_and_statistics_equal_the_fp64_reference(
    kernels: str, size: tuple[int, int], options: str, dtype: torch.dtype
) -> None:
    rewards, pairs, given = example(*size, OPTIONS[options], dtype)
    rewards.requires_grad_()
    loss, statistics = ops.batched_bt_loss(rewards, pairs, **given)
    (grad,) = torch.autograd.grad(loss, rewards)
    wanted_loss, wanted_grad, wanted_statistics = expected(rewards, pairs, given)

    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert grad.dtype == dtype
    # A pair is computed in some 16 roundings, sums in fp64. Loss and gradient of a pair with a large margin
    # are exp(-margin), which magnifies the rounding of rewards up to 12 by as much.
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    bound = rounding_bound(16, computed, magnitude=1 + 2 * 12)
    assert_close(loss.double(), wanted_loss, rtol=bound, atol=0)
    # Gradients in a lower dtype are rounded to it once, at the end.
    bound += torch.finfo(dtype).eps if dtype.itemsize == 2 else 0
    assert_close(
        grad.double(), wanted_grad, rtol=bound, atol=bound * max(map(abs, wanted_grad.tolist()), default=0)
    )
    assert_close(statistics, wanted_statistics, rtol=bound, atol=1e-9)


@pytest.mark.parametrize("ties", ["ignore", "half"])
def test_the_numbers_of_a_pair_and_a_tie(kernels: str, ties: str) -> None:
    rewards = torch.tensor([2.0, 0.5, 1.0])
    pairs, tie = torch.tensor([[0, 1], [1, 2]]), torch.tensor([False, True])
    loss, statistics = ops.batched_bt_loss(rewards, pairs, tie=tie, ties=ties)
    first = math.log1p(math.exp(-1.5))
    second = (math.log1p(math.exp(0.5)) + math.log1p(math.exp(-0.5))) / 2
    assert loss.item() == pytest.approx(first if ties == "ignore" else (first + second) / 2, rel=1e-6)
    # weight, correct, margin, margin^2, chosen, rejected, min, max, pairs
    assert statistics.tolist() == [1 if ties == "ignore" else 2, 1, 1.5, 2.25, 2, 0.5, 0.5, 2, 1]


def test_rewards_are_normalised_before_both_terms(kernels: str) -> None:
    rewards, lengths = torch.tensor([2.0, 0.5]), torch.tensor([9, 99])
    loss, _ = ops.batched_bt_loss(rewards, torch.tensor([[0, 1]]), lengths=lengths, zero_coefficient=0.1)
    chosen, rejected = 2.0 / math.log(10), 0.5 / math.log(100)
    wanted = math.log1p(math.exp(rejected - chosen)) + 0.1 * (chosen + rejected) ** 2
    assert loss.item() == pytest.approx(wanted, rel=1e-6)


def test_equal_rewards_are_half_correct(kernels: str) -> None:
    _, statistics = ops.batched_bt_loss(torch.ones(4), torch.tensor([[0, 1], [2, 3], [3, 1]]))
    assert statistics[ops.STATISTICS.index("correct")] == 1.5


def test_all_weights_zero_is_a_loss_of_zero(kernels: str) -> None:
    rewards = torch.tensor([1.0, 5.0], requires_grad=True)
    loss, statistics = ops.batched_bt_loss(rewards, torch.tensor([[0, 1]]), weight=torch.zeros(1))
    (grad,) = torch.autograd.grad(loss, rewards)
    assert loss.item() == 0
    assert grad.tolist() == [0, 0]
    assert statistics[0] == 0


def test_huge_margins_stay_finite(kernels: str) -> None:
    rewards = torch.tensor([1e4, -1e4], requires_grad=True)
    for pair, wanted, slope in (([0, 1], 0.0, 0.0), ([1, 0], 2e4, 1.0)):
        loss, _ = ops.batched_bt_loss(rewards, torch.tensor([pair]))
        (grad,) = torch.autograd.grad(loss, rewards)
        assert loss.item() == wanted
        assert grad.tolist() == [slope, -slope]


def test_nan_reaches_the_loss_and_its_gradient_but_not_the_counts(kernels: str) -> None:
    rewards = torch.tensor([1.0, math.nan, 0.0], requires_grad=True)
    loss, statistics = ops.batched_bt_loss(rewards, torch.tensor([[0, 1], [0, 2]]))
    (grad,) = torch.autograd.grad(loss, rewards)
    values = dict(zip(ops.STATISTICS, statistics.tolist(), strict=True))
    assert loss.isnan()
    assert grad.isnan().tolist() == [True, True, False]
    assert (values["pairs"], values["correct"], values["min"], values["max"]) == (2, 1, 0, 1)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-200, 200, width=32),
    st.floats(-200, 200, width=32),
    st.integers(1, 10**6),
    st.integers(1, 10**6),
)
def test_any_pair_equals_the_reference(
    first: float, second: float, first_length: int, second_length: int
) -> None:
    rewards = torch.tensor([first, second], requires_grad=True)
    given = {"lengths": torch.tensor([first_length, second_length])}
    pairs = torch.tensor([[0, 1]])
    loss, _ = ops.batched_bt_loss(rewards, pairs, **given)
    (grad,) = torch.autograd.grad(loss, rewards)
    wanted_loss, wanted_grad, _ = expected(rewards, pairs, given)
    # The loss of a large margin is exp(-margin), which magnifies the rounding of the margin itself.
    rtol = 1e-6 * (1 + abs(first) + abs(second))
    assert_close(loss.double(), wanted_loss, rtol=rtol, atol=1e-36)
    assert_close(grad.double(), wanted_grad, rtol=rtol, atol=1e-36)


def test_two_runs_and_any_number_of_threads_are_bit_equal(kernels: str) -> None:
    rewards, pairs, given = example(500, 200_000, OPTIONS["all"])
    rewards.requires_grad_()
    results = []
    threads = torch.get_num_threads()
    try:
        for num_threads in (1, 2, 2):
            torch.set_num_threads(num_threads if kernels == "cpp" else 1)
            loss, statistics = ops.batched_bt_loss(rewards, pairs, **given)
            results.append((loss.detach(), torch.autograd.grad(loss, rewards)[0], statistics))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_strides_do_not_matter(kernels: str) -> None:
    rewards, pairs, given = example(64, 40, OPTIONS["all"])
    loss, statistics = ops.batched_bt_loss(rewards, pairs, **given)
    strided = {
        key: v.repeat_interleave(2)[::2] if isinstance(v, torch.Tensor) else v for key, v in given.items()
    }
    other, others = ops.batched_bt_loss(
        rewards.expand(3, 64).t()[:, 1], pairs.t().contiguous().t(), **strided
    )
    assert torch.equal(loss, other)
    assert torch.equal(statistics, others)


def test_upstream_gradients_scale(kernels: str) -> None:
    rewards, pairs, given = example(8, 6, OPTIONS["all"])
    rewards.requires_grad_()
    loss, _ = ops.batched_bt_loss(rewards, pairs, **given)
    (grad,) = torch.autograd.grad(loss * 3, rewards, retain_graph=True)
    (single,) = torch.autograd.grad(loss, rewards)
    assert_close(grad, 3 * single)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradients_equal_finite_differences(kernels: str, options: dict[str, Any]) -> None:
    rewards, pairs, given = example(7, 12, options, torch.float64)
    assert torch.autograd.gradcheck(
        lambda r: ops.batched_bt_loss(r, pairs, **given)[0], rewards.requires_grad_()
    )


@torch_warns_of_itself
@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(dtype: torch.dtype, requires_grad: bool) -> None:
    for options in (OPTIONS["plain"], OPTIONS["all"]):
        rewards, pairs, given = example(9, 5, options, dtype)
        tensors = [given.get(name) for name in ("tie", "margin", "weight", "lengths")]
        torch.library.opcheck(
            torch.ops.basereward.batched_bt_loss.default,
            (rewards.requires_grad_(requires_grad), pairs, *tensors, 0.1, 0.02, 1.0),
        )


def test_gradients_reach_a_parameter(kernels: str) -> None:
    rewards, pairs, given = example(8, 6, OPTIONS["all"])
    parameter = torch.nn.Parameter(rewards)
    ops.batched_bt_loss(parameter, pairs, **given)[0].backward()
    _, wanted, _ = expected(rewards, pairs, given)
    assert parameter.grad is not None
    assert_close(parameter.grad.double(), wanted, rtol=1e-5, atol=1e-7)


@compiled
def test_a_loss_of_fake_tensors_has_shapes() -> None:
    rewards, pairs, _ = example(8, 6, {})
    with FakeTensorMode() as mode:
        loss, statistics = ops.batched_bt_loss(mode.from_tensor(rewards), mode.from_tensor(pairs))
    assert (loss.shape, statistics.shape) == ((), (9,))


def test_a_loss_in_the_midst_of_a_graph_has_the_gradient_of_the_whole(kernels: str) -> None:
    hidden, pairs, given = example(8, 6, OPTIONS["all"], torch.float64)
    hidden.requires_grad_()
    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    loss, _ = ops.batched_bt_loss(hidden * weight, pairs, **given)
    (loss * loss).backward()
    value, grad, _ = expected((hidden * weight).detach(), pairs, given)
    # d loss^2 / d hidden = 2 loss * d loss / d reward * weight, and for the weight hidden in its place.
    assert_close(hidden.grad, 2 * value.detach() * grad * weight.detach())
    assert_close(weight.grad, 2 * value.detach() * (grad * hidden.detach()).sum())


@compiled
def test_second_derivatives_are_refused() -> None:
    rewards, pairs, given = example(4, 3, {}, torch.float64)
    rewards.requires_grad_()
    loss, _ = ops.batched_bt_loss(rewards, pairs, **given)
    (grad,) = torch.autograd.grad(loss, rewards, create_graph=True)
    with pytest.raises(RuntimeError) as caught:
        grad.square().sum().backward()
    assert str(caught.value) == (
        "the compiled batched_bt_loss has no second derivative; BASEREWARD_KERNELS=torch chooses one that has"
    )


@pytest.mark.timeout(300)
def test_compiles_to_one_graph_for_any_number_of_pairs(kernels: str) -> None:
    torch._dynamo.reset()
    frames = 0

    def backend(graph: Any, inputs: Any) -> Any:
        nonlocal frames
        frames += 1
        return graph

    def step(rewards: Tensor, pairs: Tensor, weight: Tensor) -> Tensor:
        return ops.batched_bt_loss(rewards, pairs, weight=weight, label_smoothing=0.1)[0]

    run = torch.compile(step, fullgraph=True, dynamic=True, backend=backend)
    for num_pairs in (5, 9, 33):
        rewards, pairs, given = example(12, num_pairs, OPTIONS["weight"], seed=num_pairs)
        assert_close(run(rewards, pairs, given["weight"]), step(rewards, pairs, given["weight"]))
    assert frames == 1


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script:DeprecationWarning"
)  # torch's own, when inductor is imported
def test_inductor_gives_the_same_gradients(kernels: str) -> None:
    torch._dynamo.reset()
    rewards, pairs, given = example(12, 9, OPTIONS["all"])
    rewards.requires_grad_()
    run = torch.compile(lambda r: ops.batched_bt_loss(r, pairs, **given)[0], fullgraph=True)
    (grad,) = torch.autograd.grad(run(rewards), rewards)
    assert_close(grad.double(), expected(rewards, pairs, given)[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_leaves_the_loss_in_fp32(kernels: str, dtype: torch.dtype) -> None:
    rewards, pairs, given = example(12, 9, OPTIONS["all"], dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = ops.batched_bt_loss(rewards, pairs, **given)
    assert loss.dtype == torch.float32
    assert_close(loss.double(), expected(rewards, pairs, given)[0], rtol=1e-6, atol=0)


@compiled
def test_the_op_itself_upcasts_under_autocast() -> None:
    rewards, pairs, _ = example(12, 9, {}, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, _ = torch.ops.basereward.batched_bt_loss(
            rewards, pairs, None, None, None, None, 0.0, 0.0, 0.0
        )
    assert loss.dtype == torch.float32


TWO = torch.tensor([[0, 1], [2, 1]])
REFUSED = [
    (
        {"rewards": torch.tensor([1, 2, 3])},
        TypeError,
        "rewards has dtype torch.int64; a floating dtype is needed",
    ),
    (
        {"rewards": torch.zeros(3, 1)},
        ValueError,
        "rewards has shape [3, 1]; one reward a response, [N], is needed",
    ),
    (
        {"pairs": TWO.float()},
        TypeError,
        "pairs has dtype torch.float32; places in rewards, int64, are needed",
    ),
    ({"pairs": TWO[0]}, ValueError, "pairs has shape [2]; [P, 2], chosen and rejected, is needed"),
    ({"pairs": TWO + 1}, ValueError, "pairs holds 3, which is no place in 3 rewards"),
    ({"pairs": TWO - 1}, ValueError, "pairs holds -1, which is no place in 3 rewards"),
    ({"pairs": TWO * 2**62}, ValueError, "pairs holds 4611686018427387904, which is no place in 3 rewards"),
    ({"tie": torch.zeros(2)}, TypeError, "tie has dtype torch.float32; bool is needed"),
    ({"margin": torch.ones(3)}, ValueError, "margin has shape [3] for 2 pairs; one value each is needed"),
    ({"margin": torch.tensor([0, math.inf])}, ValueError, "margin holds inf; finite numbers are needed"),
    ({"margin": torch.tensor([math.nan, 0])}, ValueError, "margin holds nan; finite numbers are needed"),
    (
        {"weight": torch.ones(2, 1)},
        ValueError,
        "weight has shape [2, 1] for 2 pairs; one value each is needed",
    ),
    ({"weight": torch.tensor([1, -2.0])}, ValueError, "weight holds -2.0; finite numbers >= 0 are needed"),
    (
        {"lengths": torch.ones(3)},
        TypeError,
        "lengths has dtype torch.float32; numbers of tokens, int64, are needed",
    ),
    (
        {"lengths": torch.tensor([1, 2])},
        ValueError,
        "lengths has shape [2] for 3 rewards; one value each is needed",
    ),
    (
        {"lengths": torch.tensor([1, 0, 2])},
        ValueError,
        "lengths holds 0; numbers of tokens >= 1 are needed",
    ),
    (
        {"label_smoothing": 0.6},
        ValueError,
        "label_smoothing is a probability from 0 to 0.5, not 0.6",
    ),
    (
        {"zero_coefficient": -1.0},
        ValueError,
        "zero_coefficient is a finite number >= 0, not -1.0",
    ),
    ({"ties": "split"}, ValueError, "ties is 'ignore' or 'half', not 'split'"),
    (
        {"pairs": TWO.to("meta")},
        ValueError,
        "pairs is on meta, but rewards on cpu",
    ),
]


@pytest.mark.parametrize(("wrong", "error", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_what_is_wrong_is_named(
    kernels: str, wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {"rewards": torch.zeros(3), "pairs": TWO, **wrong}
    with pytest.raises(error) as caught:
        ops.batched_bt_loss(**arguments)
    assert str(caught.value) == message


@compiled
@settings(max_examples=80, deadline=None)
@given(st.integers(0, 4), st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 4), max_size=12))
def test_no_place_reads_outside_the_rewards(num_rewards: int, places: list[int]) -> None:
    pairs = torch.tensor(places[: len(places) // 2 * 2], dtype=torch.int64).reshape(-1, 2)
    inside = all(0 <= place < num_rewards for place in pairs.flatten().tolist())
    call = torch.ops.basereward.batched_bt_loss
    arguments = (torch.zeros(num_rewards), pairs, None, None, None, None, 0.0, 0.0, 0.0)
    if inside:
        call(*arguments)
    else:
        with pytest.raises(RuntimeError, match="pairs holds an index outside"):
            call(*arguments)
