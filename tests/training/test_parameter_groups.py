"""Trained and frozen parts."""

from __future__ import annotations

import pytest
import torch
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
