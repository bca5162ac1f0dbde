"""The steps of everything.py, each run as `python tests/gpu/steps.py NAME [--dry]` in a process of its own.

A line that is printed and begins with `{` is a record. `--dry` takes the CPU and tiny sizes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping

import torch
from measure import DEVICE, milliseconds, record, wait
from model_steps import attention, models, scoring, vision, waits
from run_steps import sharded, training

from basereward import ops


def machine(dry: bool) -> None:
    """Versions, and the speeds of copies and of products."""
    record(torch=torch.__version__, cuda=torch.version.cuda, ops=ops.status())
    if DEVICE == "cuda":
        facts = torch.cuda.get_device_properties(0)
        record(gpu=facts.name, processors=facts.multi_processor_count, memory_gb=facts.total_memory / 1e9)
        printed = subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=False).stdout
        print(printed, file=sys.stderr)
    if dry:
        torch.set_num_threads(1)
    size = 64 if dry else 8192
    source = torch.empty(size * size * 4, device=DEVICE)
    target = torch.empty_like(source)
    time_ms = milliseconds(lambda: target.copy_(source))
    record(what="copy", gb_per_s=2 * source.numel() * 4 / time_ms / 1e6)
    for name, dtype, tf32 in (
        ("bf16", torch.bfloat16, False),
        ("tf32", torch.float32, True),
        ("fp32", torch.float32, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        matrix = torch.randn(size, size, device=DEVICE, dtype=dtype)
        time_ms = milliseconds(lambda matrix=matrix: matrix @ matrix)
        record(what=f"products in {name}", tflop_per_s=2 * size**3 / time_ms / 1e9)


def ops_once(dry: bool) -> None:
    """Every kernel once, for compute-sanitizer."""
    torch.manual_seed(0)
    hidden = torch.randn(2, 40, 64, device=DEVICE, requires_grad=True)
    ends = torch.arange(0, 80, 4, device=DEVICE)
    layers = [torch.randn(*shape, device=DEVICE) for shape in ((96, 64), (96,), (1, 96), (1,))]
    for layer in layers:
        layer.requires_grad_()
    norm = torch.ones(64, device=DEVICE, requires_grad=True)
    pairs = torch.arange(20, device=DEVICE).reshape(-1, 2)
    loss, _, _ = ops.pairwise_reward_loss(hidden, ends, *layers, pairs, norm=norm)
    loss.backward()
    rewards = torch.randn(3000, device=DEVICE, requires_grad=True)  # as many as are sorted
    ops.batched_bt_loss(rewards, torch.randint(0, 3000, (3000, 2), device=DEVICE))[0].backward()
    wait()
    record(loss=float(loss), kernels=ops.status()[DEVICE]["kernels"])


STEPS: Mapping[str, Callable[[bool], None]] = {
    step.__name__: step
    for step in (machine, models, waits, attention, vision, scoring, training, sharded, ops_once)
}


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--dry", action="store_true", help="on the CPU, at tiny sizes")
    arguments = parser.parse_args()
    STEPS[arguments.step](arguments.dry)


if __name__ == "__main__":
    main()
