"""What a plan says of many processes, beside a model that is sharded over as many.

The processes are a fake group of torch's, in which collectives do nothing, and the model's tensors have no
memory; the sharding and the optimizer are those of a training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from basereward.config import RunConfig, TrainConfig, load_run
from basereward.costs.architecture import Architecture
from basereward.costs.flops import Counts
from basereward.costs.memory import memory
from basereward.planning.meta_model import meta_model
from basereward.plugins import PluginManager
from basereward.training import optimizers, parameter_groups
from basereward.training.distributed import ProcessGroup
from basereward.training.parallelize import ParadigmModule, apply_fsdp
from basereward.training.resolve import resolve_run

pytestmark = pytest.mark.slow  # seconds each, since each of thousands of tensors is sharded


def run_of(tmp_path: Path, model: str, **settings: Any) -> RunConfig:
    """Return a run on a published model, which is not here."""
    (tmp_path / "run.toml").write_text(
        f"""
        output = "run"
        backbone = {{ name = "qwen-vl", model = "{model}" }}
        data.train = [{{ name = "basereward", path = "rows.jsonl" }}]
        """
    )
    run = load_run(tmp_path / "run.toml")
    object.__setattr__(run, "train", TrainConfig(parallel="fsdp", **settings))
    return resolve_run(run, PluginManager())


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[ProcessGroup]:
    """Return the first process of a fake group of so many."""
    dist.init_process_group("fake", rank=0, world_size=request.param, store=FakeStore())
    yield ProcessGroup(0, request.param, torch.device("cpu"))
    dist.destroy_process_group()


def local_bytes(tensors: Iterator[Tensor]) -> int:
    """Return the bytes of tensors in this process."""
    shards = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors)
    return sum(shard.nbytes for shard in shards)


@pytest.mark.parametrize(
    ("group", "shard_ranks", "freeze"),
    [(64, None, ()), (512, None, ()), (512, 64, ("vision",))],
    ids=["64", "512", "512 in groups of 64"],
    indirect=["group"],
)
def test_72_billion_weights_take_the_bytes_in_each_process_that_are_planned(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    group: ProcessGroup,
    shard_ranks: int | None,
    freeze: tuple[str, ...],
) -> None:
    # The fused step, whose moments are the same, refuses tensors without memory.
    adamw = torch.optim.AdamW
    monkeypatch.setattr(
        torch.optim, "AdamW", lambda *args, **options: adamw(*args, **{**options, "fused": False})
    )
    run = run_of(tmp_path, "Qwen/Qwen2.5-VL-72B-Instruct", shard_ranks=shard_ranks, freeze=freeze)
    model, _ = meta_model(run, PluginManager())
    parts = parameter_groups.trainable_parts(model.part_parameters(), run.train)
    architecture = Architecture.of(model)
    assert architecture is not None
    planned = memory(model, parts, architecture, run.train, Counts(), num_ranks=group.world_size, bf16=True)

    apply_fsdp(ParadigmModule(model.paradigm), group, shard_ranks=shard_ranks, bf16=True)
    parts = parameter_groups.trainable_parts(model.part_parameters(), run.train)
    trained = [parameter for parameters in parts.values() for parameter in parameters]
    optimizer = optimizers.build(parts, run.train)
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    assert local_bytes(iter(model.paradigm.parameters())) == pytest.approx(planned.weights, rel=0.05)
    assert local_bytes(parameter.grad for parameter in trained) == pytest.approx(planned.gradients, rel=0.05)
    state = optimizers.state_of(optimizer)
    assert local_bytes(iter(state.values())) == pytest.approx(planned.optimizer, rel=0.05)
    # 73.4 billion weights of four bytes, divided by the processes that share them.
    whole = 4 * sum(parameter.numel() for parameter in model.paradigm.parameters())
    assert planned.weights == pytest.approx(whole / (shard_ranks or group.world_size), rel=0.05)
