"""The process group: what waits for how long, and which collectives run where."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torch.distributed as dist

from basereward import RewardModel
from basereward.config import Component
from basereward.plugins import PluginManager
from basereward.training.distributed import ProcessGroup


def test_a_device_that_hangs_is_given_up_soon_and_a_slow_disk_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, timedelta]] = []
    control = object()

    def init_process_group(backend: str, *, timeout: timedelta) -> None:
        calls.append((backend, timeout))

    def new_group(*, backend: str, timeout: timedelta) -> Any:
        calls.append((backend, timeout))
        return control

    groups: list[Any] = []
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("basereward.training.distributed.device_of", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(dist, "init_process_group", init_process_group)
    monkeypatch.setattr(dist, "new_group", new_group)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "all_gather_object", lambda values, value, group: groups.append(group))
    monkeypatch.setattr(dist, "broadcast_object_list", lambda values, group: groups.append(group))
    monkeypatch.setattr(dist, "all_gather", lambda tensors, tensor, group: groups.append(group))
    group = ProcessGroup.init("cuda")
    assert calls == [("cpu:gloo,cuda:nccl", timedelta(minutes=10)), ("gloo", timedelta(hours=2))]
    group.all_gather_objects("control")
    group.on_main(lambda: None)
    group.all_gather_ints([1])
    group.all_gather_tensor(torch.empty(1, device="meta"))  # as on a device
    assert groups == [control, control, control, None]


@pytest.mark.parametrize("kind", [*tiny.VL_KINDS, *tiny.INTERNVL_KINDS, *tiny.LM_KINDS])
def test_weights_that_any_batch_uses_have_a_gradient_after_each(
    tiny_models: dict[str, Path], kind: str
) -> None:
    model = RewardModel.build(
        backbone=Component(tiny.backbone_of(kind), {"model": str(tiny_models[kind])}), plugins=PluginManager()
    )
    assert model.paradigm.uses_all_weights
    model.backbone.always_runs_vision = True
    for with_images in (False, True):
        rows = [
            row
            for row in tiny.comparisons(images=kind not in tiny.LM_KINDS)
            if bool(row.images) == (with_images and kind not in tiny.LM_KINDS)
        ]
        model.paradigm.zero_grad()
        model.paradigm.loss(rows).loss.backward()
        assert [name for name, item in model.paradigm.named_parameters() if item.grad is None] == []


def test_a_middle_layer_leaves_the_final_norm_without_a_gradient(tiny_models: dict[str, Path]) -> None:
    model = RewardModel.build(
        backbone=Component("causal-lm", {"model": str(tiny_models["llama"])}),
        head=Component("mlp", {"layer": 2}),
        plugins=PluginManager(),
    )
    assert not model.paradigm.uses_all_weights
    model.paradigm.loss(tiny.comparisons(images=False)).loss.backward()
    unused = [name for name, item in model.paradigm.named_parameters() if item.grad is None]
    assert unused == ["backbone.model.norm.weight"]
