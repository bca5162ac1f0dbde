"""Mixed precision."""

from __future__ import annotations

import torch
from torch import nn

from basereward.training import precision


def test_narrow_models_are_not_computed_in_bf16_on_a_cpu_unless_asked_for() -> None:
    cpu = torch.device("cpu")
    assert not precision.computes_in_bf16("auto", cpu, 64)
    assert not precision.computes_in_bf16("fp32", cpu, 4096)
    assert precision.computes_in_bf16("bf16", cpu, 64)
    layer, states = nn.Linear(4, 4), torch.randn(2, 4)
    for bf16, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        with precision.autocast(cpu, bf16):
            assert layer(states).dtype == dtype
