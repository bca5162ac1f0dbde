"""Time the op beside its plain-torch twin, forward and backward, in turns.

Run as `python benchmarks/gated_reward.py`; `--output results.json` keeps the figures, and says what they were
measured on.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from basereward_example_op.ops import gated_reward, library, reference
from torch import Tensor

from basereward.testing.native.timing import Case, keep_large_blocks, machine, measure

SIZES = [(16, 3584), (128, 3584), (1024, 3584)]  # responses of a batch, width of a 7B model


def case(num_rows: int, width: int, dtype: torch.dtype) -> Case:
    """Return the op at one size, with the gradients of everything."""
    torch.manual_seed(0)
    shapes = ((num_rows, width), (num_rows, width), (width,))
    inputs = [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]
    upstream = torch.randn(num_rows)

    def run(function) -> tuple[Tensor, ...]:
        rewards = function(*inputs)
        return (rewards.detach(), *torch.autograd.grad(rewards, inputs, upstream))

    return Case(
        name=f"gated reward {str(dtype).removeprefix('torch.')} {num_rows} x {width}",
        ours="native",
        variants={
            "native": partial(run, gated_reward),
            "eager": partial(run, reference),
            "compile": partial(run, torch.compile(reference, dynamic=False)),
        },
        # gate and up are read forward and backward, their gradients written.
        num_bytes=6 * num_rows * width * inputs[0].element_size(),
        tolerance=1e-5 if dtype == torch.float32 else 2e-2,
    )


def main() -> None:
    """Measure, print, and keep what was asked to be kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON")
    arguments = parser.parse_args()
    keep_large_blocks()
    makers = [partial(case, *size, dtype) for dtype in (torch.float32, torch.bfloat16) for size in SIZES]
    rates, rows = measure(makers, arguments.device)
    if arguments.output:
        report = {"machine": machine(library.status()), "roofline": rates, "results": rows}
        arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
