"""Count what forest attention computes and keeps on a GPU, and how far its ways on a CPU are from a mask.

    python benchmarks/attention.py --output benchmarks/results/attention.json

Counted without data, with the heads of Qwen2.5-VL-7B in bf16: the pairs of a query and a key that the kernel
is asked for, those that are needed, and the bytes that autograd keeps in a layer. "Padded" is arithmetic: of
prompts padded to the longest, and of responses to the longest prompt and response, with a mask.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from basereward.forest import Forest, Tree, attention, pack
from basereward.forest.block_kernels import Matmul
from basereward.forest.layout import HIDDEN_PAIRS_A_CALL, ForestLayout
from basereward.forest.varlen_attention import PackedBlock

sys.path.append(str(Path(__file__).parents[1] / "tests/support"))
from emulated_flash import EmulatedFlash

HEADS, KEY_HEADS, WIDTH = 28, 4, 128
Sizes = Sequence[tuple[int, Sequence[int]]]
BATCHES: dict[str, Sizes] = {
    "8 pairs": [(2000, [400] * 2)] * 8,
    "8 best-of-16": [(2000, [400] * 16)] * 8,
    "12 pairs of an image, 4 of text": [(1100, [100, 300])] * 12 + [(60, [50, 1500])] * 4,
    "1 long prompt among 8 short": [(8000, [200, 300])] + [(300, [60, 500])] * 8,
    "199 requests of 40 tokens, 1 of 8,192": [(30, [10])] * 199 + [(8000, [100, 92])],
}
WAYS = {"blocks": None, "matrix products": Matmul, "emulated FlashAttention": EmulatedFlash}


def forest_of(sizes: Sizes) -> Forest:
    """Return one row of trees of given lengths."""
    trees = [Tree.of_text([5] * prompt, [[6] * length for length in others]) for prompt, others in sizes]
    return pack(trees, pad=0, row_tokens=10**9)


def counted(sizes: Sizes) -> dict[str, float]:
    """Return pairs and bytes of a layer, as the kernel is called and with padding."""
    forest = forest_of(sizes).to("meta")
    num_tokens = forest.input_ids.numel()
    states = [
        torch.empty(1, heads, num_tokens, WIDTH, dtype=torch.bfloat16, device="meta", requires_grad=True)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attention.forest_attention(torch.nn.Module(), *states, layout=ForestLayout(forest))
    computed = sum(pairs_of(block) for block in blocks_of(sizes))
    needed = sum(
        prompt * (prompt + 1) // 2 + sum(own * prompt + own * (own + 1) // 2 for own in others)
        for prompt, others in sizes
    )
    padded_pairs, padded_bytes = padded(sizes)
    return {
        "tokens": num_tokens,
        "computed_over_needed": computed / needed,
        "padded_over_needed": padded_pairs / needed,
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in kept),
        "padded_bytes": padded_bytes,
    }


def blocks_of(sizes: Sizes) -> list[PackedBlock]:
    """Return the blocks that the kernel is called with, where their borders can be read."""
    runs = ForestLayout(forest_of(sizes)).packed.whole
    return [*runs.self_blocks, *runs.prefix_blocks]


def pairs_of(block: PackedBlock) -> int:
    """Return the pairs that a kernel computes in a block."""
    queries, keys = block.query_starts.diff().long(), block.key_starts.diff().long()
    pairs = queries * keys
    if block.is_causal:  # the last query sees all keys, the one before it one less
        pairs -= queries * (queries - 1) // 2
    return int(pairs.sum())


def padded(sizes: Sizes) -> tuple[int, int]:
    """Return pairs and bytes of the form with padding; a single response is of one run with its prompt."""
    prefixes = [prompt if len(others) > 1 else prompt + others[0] for prompt, others in sizes]
    shared = [others for _, others in sizes if len(others) > 1]
    longest, num_branches = max(prefixes), sum(map(len, shared))
    own = max((max(others) for others in shared), default=0)
    pairs = len(sizes) * longest * (longest + 1) // 2 + num_branches * own * (longest + own)
    # In 2 bytes, keys repeated for their queries' heads; log-sum-exps in 4; a mask, which even batches share.
    is_even = len({(prompt, *others) for prompt, others in sizes}) == 1 and len(set(shared[0])) == 1
    width = HEADS * WIDTH
    numbers = 4 * len(sizes) * longest * width + 2 * num_branches * own * width
    numbers += 2 * num_branches * (longest + own) * width
    numbers += (1 if is_even else num_branches) * own * (longest + own)
    return pairs, 2 * numbers + 4 * HEADS * (len(sizes) * longest + num_branches * own)


def differences(num_forests: int) -> list[dict[str, Any]]:
    """Return the largest differences of results and gradients from a dense mask in fp64, for each way."""
    rows = []
    for name, kernel in WAYS.items():
        for dtype in (torch.float64, torch.float32):
            for reads_ends in (False, True):
                chance = random.Random(0)
                torch.manual_seed(0)
                found = [of_forest(sizes(chance), kernel, dtype, reads_ends) for _ in range(num_forests)]
                result, gradient = (max(column) for column in zip(*found, strict=True))
                kind = str(dtype).removeprefix("torch.")
                reads = "ends" if reads_ends else "all"
                row = {"way": name, "dtype": kind, "reads": reads, "results": result, "gradients": gradient}
                rows.append(row)
    return rows


def sizes(chance: random.Random) -> Sizes:
    """Return lengths of up to four trees: empty prompts and single responses among them."""
    return [
        (
            chance.choice([0, 1, chance.randint(2, 60)]),
            [chance.randint(1, 30) for _ in range(chance.randint(1, 5))],
        )
        for _ in range(chance.randint(1, 4))
    ]


def of_forest(given: Sizes, kernel: Any, dtype: torch.dtype, reads_ends: bool) -> tuple[float, float]:
    """Return how far results and gradients of one forest are from those of the mask."""
    forest = forest_of(given)
    length = forest.input_ids.numel()
    states = [torch.randn(1, number, length, 16, dtype=dtype).requires_grad_() for number in (6, 2, 2)]
    with (
        patch.object(attention, "packed_kernel", lambda query: kernel if kernel is EmulatedFlash else None),
        patch.object(
            attention, "block_kernel", attention.block_kernel if kernel is None else lambda query: kernel
        ),
        # Matrix products have no mask of their own.
        patch("basereward.forest.layout.HIDDEN_PAIRS_A_CALL", 0 if kernel is Matmul else HIDDEN_PAIRS_A_CALL),
    ):
        output = attention.forest_attention(
            torch.nn.Module(), *states, layout=ForestLayout(forest), reads_ends=reads_ends
        )[0].flatten(0, 1)
    query, key, value = (state.double() for state in states)
    exact = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=forest.visible(), enable_gqa=True
    )
    places = forest.ends if reads_ends else torch.arange(length)
    found, wanted = output[places], exact.transpose(1, 2).flatten(0, 1)[places]
    weights = torch.randn_like(wanted)
    ours = torch.autograd.grad((found * weights.to(dtype)).sum(), states)
    others = torch.autograd.grad((wanted * weights).sum(), states)
    gradients = (
        float((one.double() - other.double()).abs().max()) for one, other in zip(ours, others, strict=True)
    )
    return float((found.double() - wanted).detach().abs().max()), max(gradients)


def main() -> None:
    """Count, compare, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--forests", type=int, default=200)
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    batches = {name: counted(batch) for name, batch in BATCHES.items()}
    print(f"{'':40}{'tokens':>8}{'pairs, padded':>15}{'now':>7}{'GB, padded':>12}{'now':>7}")
    for name, row in batches.items():
        print(
            f"{name:40}{row['tokens']:8,}{row['padded_over_needed']:15.2f}{row['computed_over_needed']:7.2f}"
            f"{row['padded_bytes'] / 1e9:12.2f}{row['bytes'] / 1e9:7.2f}"
        )
    compared = differences(arguments.forests)
    for row in compared:
        print(
            f"{row['way']:24} {row['dtype']}, {row['reads']:5} results {row['results']:.1e} "
            f"gradients {row['gradients']:.1e}"
        )
    if arguments.output:
        settings = {"torch": torch.__version__, "forests": arguments.forests}
        arguments.output.write_text(
            json.dumps({"settings": settings, "batches": batches, "differences": compared}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
