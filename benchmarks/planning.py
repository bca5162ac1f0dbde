"""Compare the predictions of `basereward plan` with a real training step: FLOPs, and memory at its highest.

Run it from the repository root:

    python benchmarks/planning.py --output benchmarks/results/amx/planning.json

A Qwen2.5-VL of 29.7M random parameters with a two-layer head takes AdamW steps on a CPU, each case in a
process of its own. FLOPs are counted by torch's FlopCounterMode, told of the attention kernels that it
doesn't know: of causal pieces half, of their backward pass twice the forward. Memory is the process's peak
of resident memory over what it had before the model was made; large tensors are mapped and unmapped one by
one, so that it follows what is allocated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from sharing import Case, save_model, trees
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from basereward.comparison import Comparison
from basereward.config import Component, TrainConfig
from basereward.costs.architecture import Architecture
from basereward.costs.flops import Counts, flops
from basereward.costs.memory import FP32, activations, optimizer_bytes
from basereward.prepared import Encoded, Prepared
from basereward.scoring.reward_model import RewardModel
from basereward.training import optimizers, parameter_groups
from basereward.training.activation_checkpointing import checkpoint_activations

MEGABYTE = 1e6
SETTINGS = {
    "all trained": {},
    "vision frozen": {"freeze": ("vision",)},
    "recomputed": {"freeze": ("vision",), "activation_checkpointing": True},
}
CASES = (
    Case("pairs, p=166 r=40", 8, 2, 100, 8, 40),
    Case("rankings of 4, p=466 r=40", 4, 4, 400, 8, 40),
    Case("pairs, text, p=400 r=80", 8, 2, 400, 0, 80),
)
FORMS = [(settings, False) for settings in SETTINGS] + [("vision frozen", True)]
"""What is trained how, and whether the last layer is computed only where the head reads it."""


def status(name: str) -> int:
    """Return a figure of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def attention_flops(query: Any, key: Any, value: Any, *rest: Any, **_: Any) -> int:
    """Return the FLOPs of torch's attention kernel for CPUs: its fifth argument says whether it's causal."""
    rows, heads, queries, width = query
    pairs = queries * key[2]
    if len(rest) > 1 and rest[1]:
        pairs = queries * (queries + 1) // 2 if queries == key[2] else pairs
    return 4 * rows * heads * width * pairs


def attention_backward_flops(gradient: Any, query: Any, key: Any, value: Any, *rest: Any, **_: Any) -> int:
    """Return the FLOPs of its backward pass: four products where the forward pass has two."""
    is_causal = rest[3]  # after result, sums and dropout
    return 2 * attention_flops(query, key, value, 0.0, is_causal)


def counter() -> FlopCounterMode:
    """Return a counter that knows attention on CPUs."""
    aten = torch.ops.aten
    known: Mapping[Any, Any] = {
        aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
    }
    return FlopCounterMode(display=False, custom_mapping=dict(known))


def measure(directory: str, case: Case, settings: str, *, prunes: bool) -> dict[str, Any]:
    """Return what a case takes and what is predicted, in bytes and FLOPs."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = TrainConfig(**SETTINGS[settings])  # type: ignore[arg-type]
    ranks = list(range(case.num_responses))
    comparison = Comparison("", [str(number) for number in ranks], ranks=ranks)
    prepared = [Prepared(comparison, Encoded(tree)) for tree in trees(case)]
    torch.randn(256, 256) @ torch.randn(256, 256)  # libraries that are loaded when first used
    before = status("VmRSS")

    model = RewardModel.build(
        backbone=Component("qwen-vl", {"model": directory}),
        paradigm=Component("scalar", {"prune_last_layer": prunes}),
    )
    parts = parameter_groups.trainable_parts(model.part_parameters(), config)
    trained = [parameter for parameters in parts.values() for parameter in parameters]
    if config.activation_checkpointing:
        checkpoint_activations(model.backbone.blocks())
    optimizer = optimizers.build(parts, config)
    model.paradigm.train()

    def step() -> None:
        model.paradigm.loss_of(prepared).loss.backward()
        optimizer.step()

    step()  # after which gradients and moments are there
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    for _ in range(2):
        step()
    peak = status("VmHWM") - before

    own = {item.untyped_storage().data_ptr() for item in model.paradigm.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with counter() as counted, saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model.paradigm.loss_of(prepared).loss
        kept_bytes = sum(kept.values())
        loss.backward()

    architecture = Architecture.of(model)
    assert architecture is not None
    window = architecture.vision.window if architecture.vision else None
    counts = sum((Counts.of_tree(item.content.tree, window=window) for item in prepared), Counts())
    state = (
        sum(FP32 * item.numel() for item in model.paradigm.parameters())
        + sum(FP32 * item.numel() for item in trained)
        + optimizer_bytes([(item, item.numel()) for item in trained], config.optimizer)
    )
    recomputes = config.activation_checkpointing
    passing = activations(architecture, counts, recomputes=recomputes, bf16=False)
    return {
        "case": case.name,
        "settings": settings,
        "prunes": prunes,
        "tokens": counts.tokens,
        "flops": {
            "measured": counted.get_total_flops(),
            "predicted": flops(architecture, counts, recomputes=recomputes).total,
        },
        # With recomputation autograd is seen to keep the inputs alone; the block comes in the backward pass.
        "activations": {"measured": None if recomputes else kept_bytes, "predicted": passing.kept},
        "peak_bytes": {"measured": peak, "predicted": state + sum(passing)},
    }


def in_child(directory: str, place: int, settings: str, prunes: bool) -> dict[str, Any]:
    """Do `measure` in a process of its own."""
    arguments = [directory, str(place), settings, str(int(prunes))]
    # Every tensor of 64 KB is mapped alone, and given back when it's freed.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--child", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure every case, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    args = parser.parse_args()
    results = []
    print(
        f"{'case':28}{'settings':16}{'last layer':12}{'GFLOP':>8}{'ratio':>7}{'kept, MB':>10}{'ratio':>7}"
        f"{'peak, MB':>10}{'ratio':>7}"
    )
    with tempfile.TemporaryDirectory() as directory:
        save_model(Path(directory))
        for place, case in enumerate(CASES):
            for settings, prunes in FORMS:
                row = in_child(directory, place, settings, prunes)
                results.append(row)
                line = f"{case.name:28}{settings:16}{'pruned' if prunes else 'whole':12}"
                for name, unit, width in (
                    ("flops", 1e9, 8),
                    ("activations", MEGABYTE, 10),
                    ("peak_bytes", MEGABYTE, 10),
                ):
                    measured, predicted = row[name]["measured"], row[name]["predicted"]
                    if measured is None:
                        line += f"{'-':>{width}}{'-':>7}"
                    else:
                        line += f"{measured / unit:>{width}.1f}{predicted / measured:>7.3f}"
                print(line, flush=True)
    if args.output:
        machine = {"platform": platform.platform(), "torch": torch.__version__, "threads": 1}
        command = "python benchmarks/planning.py --output benchmarks/results/amx/planning.json"
        found = {"command": command, "machine": machine, "results": results}
        args.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        directory, place, settings, prunes = sys.argv[2:]
        print(json.dumps(measure(directory, CASES[int(place)], settings, prunes=prunes == "1")))
    else:
        main()
