"""The ops on a CUDA device: equal to the reference, bit-equal in two runs, on any stream and in a graph."""

import pytest
import torch
from torch.testing import assert_close

from basereward import ops
from basereward.ops import reference

pytestmark = pytest.mark.gpu

EPS = 1e-6
DTYPES = {
    "fp64": (torch.float64, torch.float64),
    "fp32": (torch.float32, torch.float32),
    "bf16 hidden, fp32 head": (torch.bfloat16, torch.float32),
    "bf16": (torch.bfloat16, torch.bfloat16),
    "fp16": (torch.float16, torch.float16),
}
SIZES = [(0, 8, 8), (1, 1, 1), (2, 7, 64), (33, 64, 257), (31, 300, None), (256, 96, 513), (16, 3584, 3584)]


@pytest.fixture(autouse=True)
def exact_products():
    """Compare products that are not rounded to TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def head_example(size, dtypes=DTYPES["fp32"], has_norm=False):
    """Hidden states [4, N, D], N of their rows, a norm or None, and a head's weights, on the device."""
    num_responses, width, num_columns = size
    generator = torch.Generator().manual_seed(0)

    def normal(*shape, dtype, scale=1.0):
        values = torch.randn(*shape, generator=generator) * scale
        return values.to("cuda", dtype).requires_grad_()

    hidden_dtype, dtype = dtypes
    hidden = normal(4, num_responses, width, dtype=hidden_dtype)
    ends = torch.randperm(4 * num_responses, generator=generator)[:num_responses].cuda()
    norm = normal(width, dtype=dtype) if has_norm else None
    if num_columns is None:
        layers = [None, None, normal(1, width, dtype=dtype, scale=width**-0.5)]
    else:
        layers = [
            normal(num_columns, width, dtype=dtype, scale=width**-0.5),
            normal(num_columns, dtype=dtype),
            normal(1, num_columns, dtype=dtype, scale=num_columns**-0.5),
        ]
    return [hidden, ends, norm, *layers, normal(1, dtype=dtype)]


def native_head(arguments, activation="silu"):
    hidden, ends, norm, *layers = arguments
    return ops.pairwise_reward_head(hidden, ends, *layers, activation=activation, norm=norm, norm_eps=EPS)


def plain_head(arguments, activation="silu"):
    hidden, ends, norm, *layers = arguments
    return reference.pairwise_reward_head(hidden, ends, norm, EPS, *layers, activation)


def gradients(rewards, arguments):
    upstream = torch.linspace(-1, 2, len(rewards), dtype=rewards.dtype, device="cuda")
    wanted = [a for a in arguments if a is not None and a.requires_grad]
    return torch.autograd.grad((rewards * upstream).sum(), wanted)


def error(given, wanted):
    return (given.double() - wanted).norm().item() / max(wanted.norm().item(), 1e-30)


CASES = [(size, "fp32", "silu", False) for size in SIZES]
CASES += [
    ((33, 64, 257), dtypes, activation, True) for dtypes in DTYPES for activation in ("none", "tanh", "relu")
]


@pytest.mark.parametrize(("size", "dtypes", "activation", "has_norm"), CASES, ids=str)
def test_the_head_equals_the_fp64_reference(size, dtypes, activation, has_norm):
    arguments = head_example(size, DTYPES[dtypes], has_norm)
    rewards = native_head(arguments, activation)
    plain = plain_head(arguments, activation)
    wide = [
        a.detach().double().requires_grad_() if a is not None and a.is_floating_point() else a
        for a in arguments
    ]
    wanted = plain_head(wide, activation)
    floor = {torch.float64: 1e-12, torch.float32: 1e-5}.get(DTYPES[dtypes][1], 2e-3)
    assert error(rewards, wanted) <= 2 * error(plain, wanted) + floor
    sets = (gradients(rewards, arguments), gradients(plain, arguments), gradients(wanted, wide))
    for grad, plain_grad, wanted_grad in zip(*sets, strict=True):
        assert error(grad, wanted_grad) <= 2 * error(plain_grad, wanted_grad) + floor


def loss_example(num_rewards, num_pairs, dtype=torch.float32):
    generator = torch.Generator().manual_seed(num_pairs)
    rewards = (3 * torch.randn(num_rewards, generator=generator)).to("cuda", dtype).requires_grad_()
    pairs = torch.randint(0, num_rewards, (num_pairs, 2), generator=generator).cuda()
    uniform = torch.rand(3, num_pairs, generator=generator).to("cuda", dtype)
    lengths = torch.randint(1, 900, (num_rewards,), generator=generator).cuda()
    return rewards, pairs, uniform[0] < 0.2, uniform[1], uniform[2], lengths


def native_loss(rewards, pairs, tie, margin, weight, lengths):
    options = {"label_smoothing": 0.1, "zero_coefficient": 0.02, "ties": "half"}
    return ops.batched_bt_loss(
        rewards, pairs, tie=tie, margin=margin, weight=weight, lengths=lengths, **options
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("num_rewards", "num_pairs"), [(1, 0), (2, 1), (300, 257), (40, 5000), (9000, 100_000)]
)
def test_the_loss_equals_the_reference(num_rewards, num_pairs, dtype):
    example = loss_example(num_rewards, num_pairs, dtype)
    loss, statistics = native_loss(*example)
    (grad,) = torch.autograd.grad(loss, example[0])
    wide = [part.detach().double() if part.is_floating_point() else part for part in example]
    wide[0].requires_grad_()
    wanted, wanted_statistics = reference.batched_bt_loss(*wide, 0.1, 0.02, 1.0)
    (wanted_grad,) = torch.autograd.grad(wanted, wide[0])
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-14}
    assert_close(loss.double(), wanted, **tolerance)
    assert_close(grad.double(), wanted_grad, **tolerance)
    assert_close(statistics, wanted_statistics, **tolerance)


def test_head_and_loss_in_one_equal_the_two():
    hidden, ends, norm, *layers = head_example((64, 256, 300), has_norm=True)
    pairs = torch.arange(64, device="cuda").reshape(-1, 2)
    leaves = [hidden, norm, *layers]
    loss, statistics, rewards = ops.pairwise_reward_loss(hidden, ends, *layers, pairs, norm=norm)
    wanted, wanted_statistics = ops.batched_bt_loss(
        ops.pairwise_reward_head(hidden, ends, *layers, norm=norm), pairs
    )
    assert torch.equal(loss, wanted)
    assert torch.equal(statistics, wanted_statistics)
    assert not rewards.requires_grad
    for one, other in zip(
        torch.autograd.grad(loss, leaves), torch.autograd.grad(wanted, leaves), strict=True
    ):
        assert torch.equal(one, other)


def test_the_gradient_of_many_pairs_is_that_of_few():
    rewards, pairs, *rest = loss_example(3000, 3000)  # 9 million lookups: sorted
    sorted_loss, _ = native_loss(rewards, pairs, *rest)
    (by_sorting,) = torch.autograd.grad(sorted_loss, rewards)
    few = [part[:2000] for part in rest[:3]]
    loss, _ = native_loss(rewards, pairs[:2000], *few, rest[3])
    more, _ = native_loss(rewards, pairs[2000:], *[part[2000:] for part in rest[:3]], rest[3])
    weights = [rest[2][:2000].sum(), rest[2][2000:].sum()]
    together = (loss * weights[0] + more * weights[1]) / sum(weights)
    assert_close(torch.autograd.grad(together, rewards)[0], by_sorting, rtol=1e-4, atol=1e-7)


def test_two_runs_are_bit_equal():
    head, loss = head_example((64, 256, 300), has_norm=True), loss_example(500, 20_000)
    runs = []
    for _ in range(2):
        rewards = native_head(head)
        value, statistics = native_loss(*loss)
        runs.append([*gradients(rewards, head), rewards, statistics, *torch.autograd.grad(value, loss[0])])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def test_work_goes_to_the_current_stream():
    arguments = head_example((16, 64, 64))
    wanted = native_head(arguments)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = arguments[0].detach() * 1.0
        torch.cuda._sleep(10_000_000)
        late.mul_(2)
        doubled = native_head([late, *arguments[1:]])
    torch.cuda.current_stream().wait_stream(stream)
    assert_close(doubled, native_head([arguments[0] * 2, *arguments[1:]]))
    assert not torch.equal(doubled, wanted)


def test_a_forward_pass_can_be_captured_in_a_graph():
    arguments = [None if part is None else part.detach() for part in head_example((16, 64, 64))]
    native_head(arguments)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = native_head(arguments)
    arguments[0].mul_(3)
    graph.replay()
    assert_close(captured, native_head(arguments))


def test_an_index_that_is_none_gives_nan_and_no_crash():
    hidden, _, _, *layers = head_example((4, 8, 8))
    rewards = ops.pairwise_reward_head(hidden, torch.tensor([0, 16, -1], device="cuda"), *layers)
    assert rewards.isnan().tolist() == [False, True, True]
    scores = torch.zeros(2, device="cuda")
    loss, _ = ops.batched_bt_loss(scores, torch.tensor([[0, 1], [0, 2]], device="cuda"))
    assert loss.isnan()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_it_compiles():
    arguments = head_example((16, 64, 64))
    run = torch.compile(native_head, fullgraph=True)
    assert_close(run(arguments), native_head(arguments))
