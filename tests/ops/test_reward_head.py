from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain_ops import use_plain_ops
from torch import Tensor
from torch.testing import assert_close

from basereward import ops
from basereward.ops import reference

# The opcheck of torch 2.14 asks for a gradient that its own clones of the arguments don't have.
torch_warns_of_itself = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
compiled = pytest.mark.skipif(ops.status()["cpu"]["kernels"] != "cpp", reason=ops.status()["cpu"]["reason"])

ACTIVATIONS = ("none", "tanh", "silu", "relu")
# Dtypes of hidden states and of weights.
DTYPES = {
    "fp64": (torch.float64, torch.float64),
    "fp32": (torch.float32, torch.float32),
    "bf16 hidden, fp32 head": (torch.bfloat16, torch.float32),
    "bf16": (torch.bfloat16, torch.bfloat16),
    "fp16": (torch.float16, torch.float16),
}
EPS = 1e-6
Size = tuple[int, int, "int | None"]
# Responses, width D, width H (None: linear); rows are 4 times the responses.
# Up to 12 responses in fp32 the product is our own.
FEW = [(n, 40 + n, 16 + n) for n in range(1, 14)]
SIZES = [(0, 8, 8), (1, 1, 1), (2, 7, 64), (4, 129, 255), (33, 64, 257), (31, 300, None), (256, 96, 513)]


@pytest.fixture(params=[pytest.param("cpp", marks=compiled), "torch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        use_plain_ops(monkeypatch)
    return request.param


def example(
    size: Size, dtypes: tuple[torch.dtype, torch.dtype] = DTYPES["fp32"], seed: int = 0
) -> tuple[Any, ...]:
    """Hidden states [4, N, D], N of their rows, and a head's weights, all but the rows with gradients."""
    num_responses, width, num_columns = size
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=generator) * scale).to(dtype).requires_grad_()

    hidden_dtype, dtype = dtypes
    hidden = normal(4, num_responses, width, dtype=hidden_dtype)
    ends = torch.randperm(4 * num_responses, generator=generator)[:num_responses]
    if num_columns is None:
        w2, b2 = normal(1, width, dtype=dtype, scale=width**-0.5), normal(1, dtype=dtype)
        return hidden, ends, None, None, w2, b2
    w1, b1 = normal(num_columns, width, dtype=dtype, scale=width**-0.5), normal(num_columns, dtype=dtype)
    w2, b2 = normal(1, num_columns, dtype=dtype, scale=num_columns**-0.5), normal(1, dtype=dtype)
    return hidden, ends, w1, b1, w2, b2


def gradients(rewards: Tensor, arguments: Any) -> tuple[Tensor, ...]:
    """The gradients of a function of the rewards that treats none like another."""
    upstream = torch.linspace(-1, 2, len(rewards), dtype=rewards.dtype)
    wanted = [a for a in arguments if a is not None and a.requires_grad]
    return torch.autograd.grad((rewards * upstream).sum(), wanted)


def plain_rewards(arguments: Any, activation: str = "silu", norm: Any = None) -> Tensor:
    """The reference's rewards, in the dtypes given."""
    hidden, ends, *head = arguments
    return reference.pairwise_reward_head(hidden, ends, norm, EPS, *head, activation)


def exact(arguments: Any, activation: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The fp64 reference's rewards and gradients."""
    arguments = [
        a.detach().double().requires_grad_() if a is not None and a.is_floating_point() else a
        for a in arguments
    ]
    rewards = plain_rewards(arguments, activation)
    return rewards, gradients(rewards, arguments)


def error(given: Tensor, wanted: Tensor) -> float:
    return (given.double() - wanted).norm().item() / max(wanted.norm().item(), 1e-30)


# Every size with one activation, and every dtype with every activation.
CASES = [(size, "fp32", "silu") for size in SIZES + FEW]
CASES += [((33, 64, 257), dtypes, activation) for dtypes in DTYPES for activation in ACTIVATIONS]
CASES += [((31, 300, None), dtypes, "none") for dtypes in DTYPES]


@pytest.mark.parametrize(("size", "dtypes", "activation"), CASES, ids=str)
def test_rewards_and_gradients_equal_the_fp64_reference(
    kernels: str, size: Size, dtypes: str, activation: str
) -> None:
    dtypes = DTYPES[dtypes]
    arguments = example(size, dtypes)
    rewards = ops.pairwise_reward_head(*arguments, activation=activation)
    grads = gradients(rewards, arguments)
    wanted, wanted_grads = exact(arguments, activation)
    plain = plain_rewards(arguments, activation)
    plain_grads = gradients(plain, arguments)

    assert rewards.dtype == (torch.float64 if dtypes[1] == torch.float64 else torch.float32)
    # Not further from the truth than twice what plain torch is in the same dtypes.
    floor = {torch.float64: 1e-14, torch.float32: 2e-6}.get(dtypes[1], 1e-3)
    assert error(rewards, wanted) <= 2 * error(plain, wanted) + floor
    for grad, plain_grad, wanted_grad in zip(grads, plain_grads, wanted_grads, strict=True):
        assert grad.dtype == plain_grad.dtype
        assert grad.shape == wanted_grad.shape
        assert error(grad, wanted_grad) <= 2 * error(plain_grad, wanted_grad) + floor


def test_it_is_the_modules_that_it_replaces(kernels: str) -> None:
    torch.manual_seed(0)
    head = torch.nn.Sequential(torch.nn.Linear(24, 40), torch.nn.SiLU(), torch.nn.Linear(40, 1))
    hidden, ends = torch.randn(3, 5, 24), torch.tensor([14, 0, 6])
    first, _, last = head
    rewards = ops.pairwise_reward_head(hidden, ends, first.weight, first.bias, last.weight, last.bias)
    assert_close(rewards, head(hidden.flatten(0, 1)[ends])[:, 0])


@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize("size", [(5, 24, 40), (30, 24, 40), (5, 24, None)], ids=str)
def test_the_norm_is_the_models_last_one_on_the_rows_alone(kernels: str, size: Size, dtypes: str) -> None:
    dtype = DTYPES[dtypes][1]
    arguments = example(size, DTYPES[dtypes])
    norm = (1 + 0.3 * torch.randn(24, generator=torch.Generator().manual_seed(1))).to(dtype).requires_grad_()
    rewards = ops.pairwise_reward_head(*arguments, norm=norm, norm_eps=EPS)
    grads = gradients(rewards, (*arguments, norm))

    wide = [a if a is None or a.dtype == torch.int64 else a.detach().double() for a in (*arguments, norm)]
    wide = [a.requires_grad_() if a is not None and a.dtype != torch.int64 else a for a in wide]
    normed = torch.nn.functional.rms_norm(wide[0], (24,), wide[-1], EPS)
    wanted = plain_rewards([normed, *wide[1:-1]])
    wanted_grads = gradients(wanted, wide)
    plain = plain_rewards(arguments, norm=norm)
    plain_grads = gradients(plain, (*arguments, norm))

    floor = {torch.float64: 1e-12, torch.float32: 3e-6}.get(dtype, 2e-3)
    assert error(rewards, wanted) <= 2 * error(plain, wanted) + floor
    for grad, plain_grad, wanted_grad in zip(grads, plain_grads, wanted_grads, strict=True):
        assert error(grad, wanted_grad) <= 2 * error(plain_grad, wanted_grad) + floor


def test_a_norm_of_zero_rows_is_finite(kernels: str) -> None:
    hidden = torch.zeros(3, 8, requires_grad=True)
    norm, w2 = torch.ones(8, requires_grad=True), torch.ones(1, 8)
    rewards = ops.pairwise_reward_head(hidden, None, None, None, w2, norm=norm, activation="none")
    grads = torch.autograd.grad(rewards.sum(), (hidden, norm))
    # d reward / d x = norm / sqrt(eps) = 1000 where x is 0.
    assert_close(grads[0], torch.full((3, 8), 1000.0))
    assert not grads[1].any()


def test_packed_rows_and_all_rows(kernels: str) -> None:
    hidden, ends, *head = example((6, 10, 12))
    rewards = ops.pairwise_reward_head(hidden, ends, *head)
    packed = hidden.flatten(0, 1)
    assert_close(ops.pairwise_reward_head(packed, ends, *head), rewards, rtol=0, atol=0)
    # A matrix product of other rows may add in another order.
    assert_close(ops.pairwise_reward_head(packed[ends], None, *head), rewards)


@pytest.mark.parametrize(
    "stride",
    [
        lambda hidden: hidden.transpose(0, 1).contiguous().transpose(0, 1),
        lambda hidden: hidden.transpose(1, 2).contiguous().transpose(1, 2),
        lambda hidden: torch.cat([hidden, hidden], 2)[..., : hidden.shape[2]],
        lambda hidden: torch.cat([hidden.flatten(), hidden.new_zeros(1)])[:-1].view_as(hidden),
        lambda hidden: hidden.repeat_interleave(2, 1)[:, ::2],
    ],
    ids=["batch second", "columns first", "wide rows", "storage with a tail", "every second row"],
)
def test_strides_do_not_matter(kernels: str, stride: Callable[[Tensor], Tensor]) -> None:
    hidden, *rest = example((6, 10, 12))
    arguments = (stride(hidden.detach()).requires_grad_(), *rest)
    rewards = ops.pairwise_reward_head(*arguments)
    wanted = ops.pairwise_reward_head(hidden, *rest)
    assert torch.equal(rewards, wanted)
    for grad, wanted_grad in zip(
        gradients(rewards, arguments), gradients(wanted, (hidden, *rest)), strict=True
    ):
        assert torch.equal(grad, wanted_grad)


@pytest.mark.parametrize("wanted", range(5))
def test_only_what_needs_a_gradient_gets_one(kernels: str, wanted: int) -> None:
    arguments = [None if a is None else a.detach() for a in example((4, 10, 12))]
    names = (0, 2, 3, 4, 5)
    arguments[names[wanted]].requires_grad_()
    (grad,) = gradients(ops.pairwise_reward_head(*arguments), arguments)
    _, all_grads = exact([a.requires_grad_() if i != 1 else a for i, a in enumerate(arguments)], "silu")
    assert_close(grad.double(), all_grads[wanted], rtol=1e-5, atol=1e-6)


def test_rows_that_are_no_end_are_not_read_and_get_no_gradient(kernels: str) -> None:
    hidden, ends, *head = example((3, 10, 12))
    poisoned = torch.full_like(hidden, torch.nan).flatten(0, 1)
    poisoned[ends] = hidden.flatten(0, 1)[ends].detach()
    poisoned = poisoned.view_as(hidden).detach().requires_grad_()
    rewards = ops.pairwise_reward_head(poisoned, ends, *head)
    assert torch.equal(rewards, ops.pairwise_reward_head(hidden, ends, *head))
    (grad,) = torch.autograd.grad(rewards.sum(), poisoned)
    others = torch.ones(12, dtype=torch.bool)
    others[ends] = False
    assert not grad.flatten(0, 1)[others].any()


@pytest.mark.parametrize("size", [(5, 6, 7), (5, 6, None)], ids=["two layers", "one layer"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_equal_finite_differences(kernels: str, activation: str, size: Size) -> None:
    hidden, ends, *head = example(size, DTYPES["fp64"])

    def call(hidden: Any, *head: Tensor) -> Tensor:
        layers = head if len(head) == 4 else (None, None, *head)
        return ops.pairwise_reward_head(hidden, ends, *layers, activation=activation)

    head = [part for part in head if part is not None]
    assert torch.autograd.gradcheck(call, (hidden, *head))

    def with_norm(norm: Any, hidden: Any, *head: Tensor) -> Tensor:
        layers = head if len(head) == 4 else (None, None, *head)
        return ops.pairwise_reward_head(hidden, ends, *layers, activation=activation, norm=norm)

    norm = torch.linspace(0.5, 2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(with_norm, (norm, hidden, *head))


@torch_warns_of_itself
@compiled
@pytest.mark.parametrize("dtypes", [DTYPES["fp32"], DTYPES["bf16 hidden, fp32 head"]], ids=["fp32", "mixed"])
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("size", [(5, 6, 7), (5, 6, None)], ids=["two layers", "one layer"])
@pytest.mark.parametrize("has_norm", [False, True], ids=["", "norm"])
def test_opcheck(
    dtypes: tuple[torch.dtype, torch.dtype], requires_grad: bool, size: Size, has_norm: bool
) -> None:
    arguments = [
        a.detach().requires_grad_(requires_grad) if a is not None and a.is_floating_point() else a
        for a in example(size, dtypes)
    ]
    hidden, ends, *head = arguments
    norm = torch.ones(6, dtype=dtypes[1], requires_grad=requires_grad) if has_norm else None
    arguments = (hidden, ends, norm, EPS, *head, "silu")
    torch.library.opcheck(torch.ops.basereward.pairwise_reward_head.default, arguments)


@torch_warns_of_itself
@compiled
def test_opcheck_of_the_backward() -> None:
    hidden, ends, w1, b1, w2, b2 = (part.detach() for part in example((5, 6, 7)))
    head = (torch.rand(6), EPS, w1, b1, w2)
    _, rows, pre = torch.ops.basereward.pairwise_reward_head(hidden, ends, *head, b2, "tanh")
    saved = (torch.ones(5), rows, pre, ends, *head, hidden[:0])
    for needed in ((True, True), (False, True), (True, False)):
        torch.library.opcheck(
            torch.ops.basereward.pairwise_reward_head_backward.default,
            (*saved, hidden.shape, "tanh", *needed),
        )


@compiled
def test_second_derivatives_are_refused() -> None:
    arguments = example((3, 4, 5), DTYPES["fp64"])
    rewards = ops.pairwise_reward_head(*arguments)
    (grad,) = torch.autograd.grad(rewards.sum(), arguments[0], create_graph=True)
    with pytest.raises(RuntimeError) as caught:
        grad.square().sum().backward()
    assert str(caught.value) == (
        "the compiled pairwise_reward_head has no second derivative; "
        "BASEREWARD_KERNELS=torch chooses one that has"
    )


def test_two_runs_are_bit_equal(kernels: str) -> None:
    arguments = example((40, 64, 1000))
    results = []
    for _ in range(2):
        rewards = ops.pairwise_reward_head(*arguments)
        results.append((rewards.detach(), *gradients(rewards, arguments)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("dtypes", [DTYPES["fp32"], DTYPES["bf16 hidden, fp32 head"]], ids=["fp32", "mixed"])
def test_autocast_has_no_say(kernels: str, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    arguments = example((9, 30, 40), dtypes)
    plain = ops.pairwise_reward_head(*arguments)
    wanted = gradients(plain, arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rewards = ops.pairwise_reward_head(*arguments)
    grads = gradients(rewards, arguments)
    assert torch.equal(rewards, plain)
    assert all(torch.equal(a, b) for a, b in zip(grads, wanted, strict=True))


@pytest.mark.timeout(300)
def test_compiles_to_one_graph_for_any_number_of_responses(kernels: str) -> None:
    torch._dynamo.reset()
    frames = 0

    def backend(graph: Any, inputs: Any) -> Any:
        nonlocal frames
        frames += 1
        return graph

    run = torch.compile(ops.pairwise_reward_head, fullgraph=True, dynamic=True, backend=backend)
    for num_responses in (5, 9, 33):
        arguments = example((num_responses, 6, 7))
        assert_close(run(*arguments), ops.pairwise_reward_head(*arguments))
    assert frames == 1


HEAD = {
    "hidden": torch.zeros(2, 3, 4),
    "ends": torch.tensor([5, 0]),
    "w1": torch.zeros(8, 4),
    "b1": torch.zeros(8),
    "w2": torch.zeros(1, 8),
    "b2": torch.zeros(1),
}
REFUSED = [
    (
        {"hidden": torch.zeros(2, 3, 4, dtype=torch.int32)},
        TypeError,
        "hidden has dtype torch.int32; float64, float32, bfloat16 or float16 is needed",
    ),
    (
        {"b1": torch.zeros(8).half()},
        TypeError,
        "b1 has dtype torch.float16, but w2 torch.float32; a head has one dtype",
    ),
    ({"ends": torch.zeros(2)}, TypeError, "ends has dtype torch.float32; rows of hidden, int64, are needed"),
    ({"hidden": torch.zeros(4)}, ValueError, "hidden has shape [4]; [B, L, D] or [T, D] is needed"),
    ({"ends": torch.tensor(3)}, ValueError, "ends has shape []; one row a response, [N], is needed"),
    ({"ends": torch.tensor([0, 6])}, ValueError, "ends holds 6, which is none of the 6 rows of hidden"),
    ({"ends": torch.tensor([-1, 0])}, ValueError, "ends holds -1, which is none of the 6 rows of hidden"),
    ({"ends": torch.tensor([3, 3])}, ValueError, "ends holds 3 twice; each response has an end of its own"),
    (
        {"w1": torch.zeros(8, 5)},
        ValueError,
        "w1 has shape [8, 5]; [H, 4] is needed for hidden states of width 4",
    ),
    ({"norm": torch.ones(5)}, ValueError, "norm has shape [5]; [4] is needed"),
    (
        {"norm": torch.ones(4, dtype=torch.float64)},
        TypeError,
        "norm has dtype torch.float64, but w2 torch.float32; a head has one dtype",
    ),
    ({"norm_eps": -1.0}, ValueError, "norm_eps is -1.0; a finite number >= 0 is needed"),
    ({"b1": torch.zeros(7)}, ValueError, "b1 has shape [7]; [8] is needed"),
    ({"w2": torch.zeros(2, 8)}, ValueError, "w2 has shape [2, 8]; [1, 8] or [8] is needed"),
    ({"b2": torch.zeros(2)}, ValueError, "b2 has shape [2]; one number is needed"),
    ({"w1": torch.zeros(8, 4, device="meta")}, ValueError, "w1 is on meta, but hidden on cpu"),
    ({"activation": "gelu"}, ValueError, "activation is 'gelu'; allowed: none, tanh, silu, relu"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_what_is_wrong_is_named(
    kernels: str, wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        ops.pairwise_reward_head(**{**HEAD, **wrong})
    assert str(caught.value) == message
