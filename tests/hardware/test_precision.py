"""The settings `device` and `precision`: what `auto` takes, and what scoring does without a setting."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from basereward.errors import ConfigError
from basereward.hardware import precision
from basereward.hardware.precision import (
    Precision,
    device_of,
    scoring_precision,
    training_precision,
    weights_dtype,
)
from basereward.hardware.processor import Bf16Support

CPU, GPU = torch.device("cpu"), torch.device("cuda")
WIDE, NARROW = 576, 64


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def is_fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Make bf16 fast or slow on every device."""
    fast: bool = request.param
    monkeypatch.setattr(precision, "bf16_support", lambda device: Bf16Support(fast, "the processor's"))
    return fast


def test_auto_takes_bf16_where_it_is_fast(is_fast: bool) -> None:
    expected = "bf16" if is_fast else "fp32"
    assert training_precision("auto", CPU, WIDE).name == expected
    assert training_precision("auto", GPU, NARROW).name == expected
    assert training_precision("auto", CPU, NARROW).name == "fp32"
    assert "auto: the processor's" in str(training_precision("auto", CPU, WIDE))


def test_a_forced_precision_is_kept_and_warns_where_it_is_the_slow_one(is_fast: bool) -> None:
    assert training_precision("fp32", CPU, WIDE) == Precision("fp32", "precision = 'fp32'", "cpu")
    forced = training_precision("bf16", CPU, NARROW)
    assert forced.name == "bf16"
    assert bool(forced.warning) != is_fast
    assert is_fast or "basereward doctor" in forced.warning


def test_scoring_is_in_fp32_on_a_cpu_unless_asked(is_fast: bool) -> None:
    hardware = "bf16" if is_fast else "fp32"
    assert scoring_precision(None, CPU, WIDE) == Precision("fp32", "default on a CPU", "cpu")
    assert scoring_precision(None, GPU, WIDE).name == hardware
    assert scoring_precision("auto", CPU, WIDE).name == hardware
    assert scoring_precision("bf16", CPU, WIDE).name == "bf16"
    assert scoring_precision("fp32", GPU, WIDE).name == "fp32"


def test_weights_in_half_precision_are_auto_and_of_any_width(is_fast: bool) -> None:
    assert scoring_precision(None, CPU, NARROW, torch.bfloat16).name == ("bf16" if is_fast else "fp32")
    assert scoring_precision("fp32", CPU, NARROW, torch.bfloat16).name == "fp32"
    assert scoring_precision(None, GPU, WIDE, torch.float16).name == "fp16"
    assert scoring_precision(None, CPU, WIDE, torch.float16).name == "fp32"


def test_a_small_part_in_half_precision_does_not_count() -> None:
    # As an image encoder in bf16 beside a decoder in fp32: 20 weights against 42.
    module = nn.Sequential(nn.Linear(4, 4).bfloat16(), nn.Linear(6, 6))
    assert weights_dtype(module) == torch.float32
    assert weights_dtype(module.bfloat16()) == torch.bfloat16
    assert weights_dtype(nn.Identity()) == torch.float32


@pytest.mark.parametrize("choose", [training_precision, scoring_precision])
def test_another_setting_is_refused(choose: object) -> None:
    with pytest.raises(ConfigError, match="precision is 'fp8'; allowed: auto, fp32, bf16"):
        choose("fp8", CPU, WIDE)  # type: ignore[operator]


def test_the_context_computes_products_in_the_precision() -> None:
    layer, states = nn.Linear(4, 4), torch.randn(2, 4)
    for chosen, dtype in ((Precision("bf16"), torch.bfloat16), (Precision("fp32"), torch.float32)):
        with chosen.autocast():
            assert layer(states).dtype == dtype


def test_devices_are_named_as_torch_names_them() -> None:
    assert device_of("cpu") == CPU
    for name in ("banana", "cuda:77", "cpu:x"):
        with pytest.raises(ConfigError, match=f"device {name}: .*; write auto, cpu, cuda or cuda:1"):
            device_of(name)


@pytest.mark.parametrize(("rank", "index"), [("1", 1), ("5", None), (None, None)])
def test_auto_is_the_gpu_of_the_process(
    rank: str | None, index: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert device_of("auto") == torch.device("cuda", index) if index is not None else torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == CPU
