"""Parts, schedules, gradients and precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from basereward import ConfigError
from basereward.config import TrainConfig
from basereward.training import parameter_groups


def parts() -> dict[str, list[nn.Parameter]]:
    torch.manual_seed(0)
    vision, language, head = nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1)
    return {
        name: list(part.parameters())
        for name, part in (("vision", vision), ("language", language), ("head", head))
    }


def test_a_parameter_of_two_parts_stays_frozen_with_one_of_them() -> None:
    found = parts()
    found["head"].append(found["vision"][0])
    trainable = parameter_groups.trainable_parts(found, TrainConfig(freeze=("vision",)))
    assert trainable.keys() == {"language", "head"}
    assert len(trainable["head"]) == 2
    assert not found["vision"][0].requires_grad


def test_what_a_backbone_has_frozen_itself_stays_as_it_is() -> None:
    found = parts()
    for parameter in found["vision"]:
        parameter.requires_grad_(False).data = parameter.data.bfloat16()
    assert parameter_groups.trainable_parts(found, TrainConfig()).keys() == {"language", "head"}
    assert found["vision"][0].dtype == torch.bfloat16
    with pytest.raises(ConfigError) as caught:
        parameter_groups.trainable_parts(found, TrainConfig(lr_parts={"vision": 1e-6}))
    assert str(caught.value) == "train.lr_parts: part 'vision' is frozen, so it has no learning rate"


@given(
    num_steps=st.integers(1, 300),
    warmup=st.floats(0, 1),
    schedule=st.sampled_from(["cosine", "linear", "constant"]),
)
def test_every_step_has_a_rate_which_rises_in_the_warm_up_and_never_after(
    num_steps: int, warmup: float, schedule: str
) -> None:
    config = TrainConfig(warmup_fraction=warmup, schedule=schedule)  # type: ignore[arg-type]
    factors = [parameter_groups.schedule_factor(step, num_steps, config) for step in range(num_steps)]
    assert all(0 < factor <= 1 for factor in factors)
    top = round(warmup * num_steps)
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert max(factors) == 1


def test_the_schedules_have_their_shapes() -> None:
    def factors(schedule: str) -> list[float]:
        config = TrainConfig(warmup_fraction=0.2, schedule=schedule)  # type: ignore[arg-type]
        return [round(parameter_groups.schedule_factor(step, 10, config), 4) for step in range(10)]

    # 2 steps of warm-up, then 8 eighths of the way down: 1 - k/8 and (1 + cos(pi k/8)) / 2.
    assert factors("linear") == [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    assert factors("cosine") == [0.5, 1.0, 1.0, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381]
    assert factors("constant") == [0.5, *[1.0] * 9]


@given(weight=st.floats(0.1, 1e4), clip=st.sampled_from([0.0, 0.1, 1e6]))
def test_clipping_is_that_of_torch_on_the_mean_gradient(weight: float, clip: float) -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(2))]
    theirs = [nn.Parameter(torch.zeros_like(parameter)) for parameter in ours]
    for mine, other in zip(ours[:2], theirs, strict=False):  # the third has no gradient
        mine.grad = torch.randn_like(mine) * weight
        other.grad = mine.grad / weight
    norm = parameter_groups.average_and_clip(ours, torch.tensor(weight, dtype=torch.float64), clip)
    expected = nn.utils.clip_grad_norm_(theirs, clip or float("inf"))
    assert float(norm) == pytest.approx(float(expected), rel=1e-5)
    for mine, other in zip(ours[:2], theirs, strict=False):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-7)


def test_a_batch_without_weight_changes_nothing() -> None:
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.zeros(2)
    assert (
        float(parameter_groups.average_and_clip([parameter], torch.tensor(0.0, dtype=torch.float64), 1.0))
        == 0
    )
    assert parameter.grad.tolist() == [0, 0]
    assert (
        float(
            parameter_groups.average_and_clip([nn.Parameter(torch.ones(2))], torch.tensor(1.0).double(), 1.0)
        )
        == 0
    )


def test_narrow_models_are_not_computed_in_bf16_on_a_cpu_unless_asked_for() -> None:
    cpu = torch.device("cpu")
    assert not parameter_groups.computes_in_bf16("auto", cpu, 64)
    assert not parameter_groups.computes_in_bf16("fp32", cpu, 4096)
    assert parameter_groups.computes_in_bf16("bf16", cpu, 64)
    layer, states = nn.Linear(4, 4), torch.randn(2, 4)
    for bf16, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        with parameter_groups.autocast(cpu, bf16):
            assert layer(states).dtype == dtype
