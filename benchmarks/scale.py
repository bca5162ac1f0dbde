"""Compare the planned memory of many processes with a sharded model's, and count the bytes that each reads.

Run it from the repository root:

    python benchmarks/scale.py --output benchmarks/results/scale.json

The processes are a fake group of torch's; the model has the published sizes and no memory; sharding and
optimizer are those of a training. What a process reads of the files is its rows in bf16, as the hub has them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from basereward.config import Component, DataConfig, RunConfig, Source, TrainConfig
from basereward.costs.architecture import Architecture
from basereward.costs.flops import Counts
from basereward.costs.memory import BF16, memory
from basereward.planning.meta_model import meta_model
from basereward.plugins import PluginManager
from basereward.training import optimizers, parameter_groups
from basereward.training.distributed import ProcessGroup
from basereward.training.parallelize import ParadigmModule, apply_fsdp
from basereward.training.resolve import resolve_run

MODEL = "Qwen/Qwen2.5-VL-72B-Instruct"
GROUPS = ((64, None), (512, None), (512, 64))
"""Processes, and how many of them share one copy."""


def main() -> None:
    """Write the bytes of each group, planned and counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default=MODEL, help="a published Qwen-VL; default: %(default)s")
    options = parser.parse_args()
    # The fused step, whose moments are the same, refuses tensors without memory.
    torch.optim.AdamW = partial(_unfused, torch.optim.AdamW)  # type: ignore[assignment, misc]
    cases = [compare(options.model, *group) for group in GROUPS]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"model": options.model, "cases": cases}, indent=2) + "\n")
    for case in cases:
        print(json.dumps(case))


def compare(name: str, num_ranks: int, shard_ranks: int | None) -> dict[str, Any]:
    """Return the bytes of a process, planned and counted."""
    run = resolve_run(
        RunConfig(
            output="run",
            backbone=Component("qwen-vl", {"model": name}),
            data=DataConfig(train=(Source("basereward", {"path": "rows.jsonl"}),)),
            train=TrainConfig(parallel="fsdp", shard_ranks=shard_ranks),
        ),
        PluginManager(),
    )
    dist.init_process_group("fake", rank=0, world_size=num_ranks, store=FakeStore())
    model, _ = meta_model(run, PluginManager())
    parts = parameter_groups.trainable_parts(model.part_parameters(), run.train)
    architecture = Architecture.of(model)
    assert architecture is not None
    planned = memory(model, parts, architecture, run.train, Counts(), num_ranks=num_ranks, bf16=True)
    group = ProcessGroup(0, num_ranks, torch.device("cpu"))
    apply_fsdp(ParadigmModule(model.paradigm), group, shard_ranks=shard_ranks, bf16=True)
    parts = parameter_groups.trainable_parts(model.part_parameters(), run.train)
    trained = [parameter for parameters in parts.values() for parameter in parameters]
    optimizer = optimizers.build(parts, run.train)
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    counted = {
        "weights": _bytes(model.paradigm.parameters()),
        "gradients": _bytes(parameter.grad for parameter in trained if parameter.grad is not None),
        "optimizer": _bytes(optimizers.state_of(optimizer).values()),
    }
    backbone = list(model.backbone.parameters())
    dist.destroy_process_group()
    return {
        "processes": num_ranks,
        "shard_ranks": shard_ranks or num_ranks,
        "counted": counted,
        "planned": {key: getattr(planned, key) for key in counted},
        "read": BF16 * sum(parameter.to_local().numel() for parameter in backbone),
        "files": BF16 * sum(parameter.numel() for parameter in backbone),
    }


def _unfused(adamw: Any, *args: Any, **options: Any) -> Any:
    return adamw(*args, **{**options, "fused": False})


def _bytes(tensors: Iterable[Tensor]) -> int:
    shards = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors)
    return sum(shard.nbytes for shard in shards)


if __name__ == "__main__":
    main()
