"""Memory by kind of tensor, and time per step, of each training strategy.

Run as `python benchmarks/strategies.py`. All train one Qwen2.5-VL of about 30M random parameters on the same
4 pairs in fp32, in interleaved steps, so that a noisy machine disturbs them alike. Memory is counted, not
sampled: the bytes of the tensors.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from sharing import Case, save_model, trees
from torch import Tensor, nn

from basereward import Comparison
from basereward.backbones.transformers_model import without_transformers_bars
from basereward.config import Component, DataConfig, LoraConfig, RunConfig, Source, TrainConfig
from basereward.plugins import PluginManager
from basereward.prepared import Encoded, Prepared
from basereward.training import optimizers
from basereward.training.distributed import ProcessGroup
from basereward.training.model_state import TrainedModel

STRATEGIES: dict[str, dict[str, Any]] = {
    "AdamW": {},
    "Adafactor": {"optimizer": "adafactor"},
    "8-bit AdamW": {"optimizer": "adamw-8bit"},
    "EMA": {"ema_decay": 0.999},
    "activation checkpointing": {"activation_checkpointing": True},
    "frozen vision": {"freeze": ("vision",)},
    "LoRA": {"lora": LoraConfig(rank=16)},
    "LoRA on 4 bits": {"lora": LoraConfig(rank=16), "quantize": "4bit"},
    "LoRA on 4 bits, activation checkpointing": {
        "lora": LoraConfig(rank=16),
        "quantize": "4bit",
        "activation_checkpointing": True,
    },
}
CASE = Case("pairs", 4, 2, 100, 8, 40)


def trained_model(directory: str, settings: dict[str, Any]) -> TrainedModel:
    """Return a model in training."""
    settings = {"lr": 1e-5, "precision": "fp32", **settings}
    options = {"model": directory, "quantize": settings.pop("quantize", None)}
    config = RunConfig(
        output="unused",
        backbone=Component("qwen-vl", options),
        data=DataConfig(train=(Source("unused"),)),
        train=TrainConfig(**settings),
    )
    torch.manual_seed(0)
    model = TrainedModel(config, PluginManager(), ProcessGroup())
    model.train()
    return model


def num_bytes(tensors: Any) -> int:
    """Return the bytes of tensors, each counted once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors if tensor.numel()}.values())


@contextmanager
def kept_for_backward(module: nn.Module, found: list[int]) -> Iterator[None]:
    """Count the bytes that forward passes keep for backward ones, weights aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield
    found.append(sum(kept.values()))


def memory(model: TrainedModel, batch: list[Prepared[Encoded]]) -> dict[str, float]:
    """Take one step, and return megabytes by what they are for."""
    found: list[int] = []
    with kept_for_backward(model.module, found):
        total, _ = model.module(batch)
    del total
    model.accumulate_gradients([batch], 1, None)
    parameters = list(model.module.parameters())
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    sizes = {
        "weights": num_bytes(parameters),
        "gradients": num_bytes(gradients),
        "activations": found[0],
    }
    model.optimizer_step(1)
    sizes["moments"] = num_bytes(optimizers.state_of(model.optimizer).values())
    sizes["ema"] = num_bytes(model.ema.tensors.values())
    return {name: size / 1e6 for name, size in sizes.items()}


def main() -> None:
    """Measure every strategy and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9, help="timed turns of each strategy (default 9)")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    row = Comparison("", ["better", "worse"], ranks=[0, 1])
    batch = [Prepared(row, Encoded(tree)) for tree in trees(CASE)]
    with tempfile.TemporaryDirectory() as directory, without_transformers_bars():
        save_model(Path(directory))
        models = {name: trained_model(directory, settings) for name, settings in STRATEGIES.items()}
    results = {name: memory(model, batch) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(arguments.repeats):
        for name, model in models.items():
            began = time.perf_counter()
            model.accumulate_gradients([batch], 1, None)
            model.optimizer_step(repeat + 2)
            seconds[name].append(time.perf_counter() - began)
    first = next(iter(models))
    parts = ["weights", "gradients", "moments", "ema", "activations"]
    print(f"MB {'':37}{''.join(f'{part:>12}' for part in parts)}{'step ms':>10}{'times':>7}")
    rows = []
    for name, sizes in results.items():
        ratios = [own / other for own, other in zip(seconds[name], seconds[first], strict=True)]
        row = {"strategy": name, **{part: sizes[part] for part in parts}}
        row |= {"step_ms": 1e3 * statistics.median(seconds[name]), "time_ratio": statistics.median(ratios)}
        rows.append(row)
        shown = "".join(f"{sizes[part]:12.1f}" for part in parts)
        print(f"{name:40}{shown}{row['step_ms']:10.0f}{row['time_ratio']:7.2f}")
    if arguments.output:
        machine = {
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        command = f"python benchmarks/strategies.py --repeats {arguments.repeats} --output {arguments.output}"
        content = {"command": command, "machine": machine, "results": rows}
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
