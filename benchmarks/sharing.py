"""Time shared prompts: forward passes and training steps, forest against one row a response.

Run as `python benchmarks/sharing.py`. Both forms run on one Qwen2.5-VL of about 30M random parameters, in
fp32, and take turns so that a noisy machine disturbs both alike. The speed-up stands beside the token ratio
N(p + r) / (p + Nr), which counts what is saved if time goes with tokens; the image tower, which also runs
once, and the last layer, of which only the ends are computed, come on top.

It then measures what the framework costs (a step through the paradigm beside the bare transformers model on
the same packed inputs), and the memory of a training step over its tokens, each length in a process of its
own.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from basereward.backbones.qwen_vl import Grid, QwenVL, mrope_positions
from basereward.comparison import Comparison
from basereward.forest import Forest, Tree
from basereward.forest.layout import ForestLayout
from basereward.heads import MLP
from basereward.losses import BradleyTerry, Targets
from basereward.paradigms.scalar import Scalar
from basereward.prepared import Encoded, Prepared

PATCH = 14
MERGE = 2


IMAGES = ("pixel_values", "image_grid_thw")
"""Tensors of images that transformers takes."""


@dataclass(frozen=True)
class Case:
    """One shape of comparison: `num_trees` of them in a batch."""

    name: str
    num_trees: int
    num_responses: int
    text_tokens: int
    image_side: int  # merged patches along one side; 0 for text only
    response_tokens: int

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, images and their two markers included."""
        return self.text_tokens + (self.image_side**2 + 2 if self.image_side else 0)

    @property
    def token_ratio(self) -> float:
        """Tokens of one row a response over tokens of the forest."""
        prompt, response, count = self.prompt_tokens, self.response_tokens, self.num_responses
        return count * (prompt + response) / (prompt + count * response)


CASES = (
    Case("pairs, p=166 r=40", 8, 2, 100, 8, 40),
    Case("pairs, p=466 r=40", 3, 2, 400, 8, 40),
    Case("rankings of 4, p=166 r=40", 4, 4, 100, 8, 40),
    Case("rankings of 4, p=466 r=40", 2, 4, 400, 8, 40),
    Case("best of 16, p=166 r=40", 1, 16, 100, 8, 40),
    Case("best of 16, p=166 r=200", 1, 16, 100, 8, 200),
    Case("pairs, text, p=166 r=40", 4, 2, 166, 0, 40),
    Case("best of 16, text, p=166 r=40", 1, 16, 166, 0, 40),
)
MEMORY_LENGTHS = (100, 200, 400, 800)
"""Tokens of each response where memory is measured."""


def save_model(directory: Path) -> None:
    """Write a random Qwen2.5-VL of about 30M parameters with an arbitrary small tokenizer."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLModel
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    torch.manual_seed(0)
    tokens = ["<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    words = Tokenizer(
        models.WordLevel({token: number for number, token in enumerate(tokens)}, "<|endoftext|>")
    )
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token=tokens[0]).save_pretrained(directory)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    text = {
        "vocab_size": 4096, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
        "num_attention_heads": 8, "num_key_value_heads": 2, "rope_parameters": rope, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "depth": 4, "hidden_size": 256, "intermediate_size": 688, "num_heads": 4, "out_hidden_size": 512,
        "patch_size": PATCH, "spatial_merge_size": MERGE, "window_size": 112, "fullatt_block_indexes": [1, 3],
    }  # fmt: skip
    ids = {"vision_start_token_id": 1, "vision_end_token_id": 2, "image_token_id": 3, "video_token_id": 4}
    Qwen2_5_VLModel(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)).save_pretrained(
        directory
    )
    Qwen2VLImageProcessorPil(patch_size=PATCH, merge_size=MERGE).save_pretrained(directory)


def trees(case: Case) -> list[Tree]:
    """Return a case's trees of random tokens and, where it has images, random patches."""
    made = []
    for _ in range(case.num_trees):
        text = torch.randint(5, 4096, (case.text_tokens,)).tolist()
        responses = torch.randint(5, 4096, (case.num_responses, case.response_tokens)).tolist()
        if not case.image_side:
            tree = Tree.of_text(text, responses)
            made.append(Tree(text, responses, tree.positions.expand(3, -1), tree.start))
            continue
        side = case.image_side
        prompt = [1, *[3] * side**2, 2, *text]
        positions, start = mrope_positions(prompt, {3: [(Grid(1, side, side), 1.0)]})
        patches = torch.randn((side * MERGE) ** 2, 3 * 2 * PATCH**2)
        grid = torch.tensor([[1, side * MERGE, side * MERGE]])
        made.append(
            Tree(prompt, responses, positions, start, {"pixel_values": patches, "image_grid_thw": grid})
        )
    return made


def targets_of(case: Case) -> Targets:
    """Return targets that rank every response."""
    row = Comparison("", map(str, range(case.num_responses)), ranks=range(case.num_responses))
    return Targets.of([row] * case.num_trees)


def forget(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.grad = None


def runner(
    backbone: QwenVL, head: nn.Module, forest: Forest, targets: Targets, train: bool
) -> Callable[[], Tensor]:
    """Return what is timed: forward and backward of the loss, or a forward pass alone."""
    loss = BradleyTerry()

    def step() -> Tensor:
        rewards = head(backbone(forest), forest)
        loss(rewards, targets).loss.backward()
        forget(backbone)
        return rewards.detach()

    @torch.no_grad()
    def score() -> Tensor:
        return head(backbone(forest), forest)

    return step if train else score


def in_turns(
    runs: Mapping[str, Callable[[], Any]], repeats: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Run everything in turns, once unmeasured, and return the seconds of each and its last result."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    results = {}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            results[name] = run()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return times, results


def measure(backbone: QwenVL, head: nn.Module, case: Case, *, train: bool, repeats: int) -> dict[str, Any]:
    """Time both forms in turns; refuse to where their rewards differ."""
    torch.manual_seed(0)
    batch, targets = trees(case), targets_of(case)
    forest = replace(backbone.pack(batch, row_tokens=math.inf), reads="ends")
    forms = {
        "forest": ("forest", runner(backbone, head, forest, targets, train)),
        "rows": ("plain", runner(backbone, head, backbone.pack(batch, shared=False), targets, train)),
    }

    def in_mode(mode: str, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def switched() -> Tensor:
            backbone.decoder.use(mode)
            return run()

        return switched

    times, rewards = in_turns({name: in_mode(*form) for name, form in forms.items()}, repeats)
    difference = float((rewards["forest"] - rewards["rows"]).abs().max())
    if difference > 1e-5:
        raise SystemExit(f"{case.name}: rewards differ by {difference:.1e}; not timed")
    speed_up = statistics.median(
        rows / forest for forest, rows in zip(times["forest"], times["rows"], strict=True)
    )
    return {
        "case": case.name,
        "what": "training step" if train else "forward",
        "has_images": case.image_side > 0,
        "forest_ms": 1e3 * statistics.median(times["forest"]),
        "rows_ms": 1e3 * statistics.median(times["rows"]),
        "speed_up": speed_up,
        "token_ratio": case.token_ratio,
        "share_of_ratio": speed_up / case.token_ratio,
        "max_difference": difference,
    }


def overhead(backbone: QwenVL, head: nn.Module, case: Case, repeats: int) -> dict[str, Any]:
    """Time a step through the paradigm beside the bare model's forward and backward on the same inputs.

    The last layer is computed whole in both, which the paradigm would save otherwise.
    """
    torch.manual_seed(0)
    backbone.decoder.use("forest")
    paradigm = Scalar(backbone, head, BradleyTerry(), prune_last_layer=False)
    row = Comparison("", map(str, range(case.num_responses)), ranks=range(case.num_responses))
    batch = [Prepared(row, Encoded(tree)) for tree in trees(case)]
    forest = backbone.pack(trees(case), row_tokens=math.inf)
    layout = ForestLayout(forest)
    images = {name: value for name, value in forest.media.items() if name in IMAGES}

    def ours() -> None:
        paradigm.loss_of(batch).loss.backward()
        forget(paradigm)

    def bare() -> None:
        found = backbone.model(
            input_ids=forest.input_ids,
            position_ids=forest.positions,
            attention_mask=None,
            layout=layout,
            use_cache=False,
            **images,
        )
        found.last_hidden_state.flatten(0, 1)[forest.ends].sum().backward()
        forget(backbone)

    times, _ = in_turns({"ours": ours, "bare": bare}, repeats)
    share = statistics.median(mine / other for mine, other in zip(times["ours"], times["bare"], strict=True))
    return {"case": case.name, "bare_ms": 1e3 * statistics.median(times["bare"]), "overhead": share - 1}


def _peak(directory: str, response_tokens: int, results: Any) -> None:
    """Put the tokens of a training step, and the bytes that it took at its highest, into a queue."""
    backbone = QwenVL(model=directory)
    head = MLP(backbone.dim)

    def step(length: int) -> int:
        case = Case("", 1, 4, 400, 0, length)
        forest = replace(backbone.pack(trees(case)), reads="ends")
        runner(backbone, head, forest, targets_of(case), True)()
        return forest.input_ids.numel()

    step(8)  # which allocates gradients and whatever is allocated once
    before = _peak_bytes()
    tokens = step(response_tokens)
    results.put((tokens, _peak_bytes() - before))


def _peak_bytes() -> int:
    """Return the largest memory of this process itself: `getrusage` counts what its parent had, too."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def memory(directory: str) -> list[dict[str, float]]:
    """Return the memory of a training step on a prompt of 400 tokens and 4 responses of each length."""
    context = multiprocessing.get_context("spawn")
    found = []
    for length in MEMORY_LENGTHS:
        results = context.Queue()
        child = context.Process(target=_peak, args=(directory, length, results))
        child.start()
        tokens, peak = results.get(timeout=300)
        child.join()
        found.append({"tokens": tokens, "peak_bytes": peak, "bytes_a_token": peak / tokens})
    return found


def main() -> None:
    """Measure everything and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed turns of each form (default 5)")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--keep", action="store_true", help="keep them for this machine, in results and docs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        save_model(Path(directory))
        backbone = QwenVL(model=directory)
        head = MLP(backbone.dim)
        size = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
        print(
            f"Qwen2.5-VL, {size:.1f}M random parameters, fp32, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}"
        )
        print(
            f"{'case':30}{'what':15}{'forest':>9}{'rows':>9}{'speed-up':>10}{'tokens':>8}{'share':>7}{'differ':>9}"
        )
        results = []
        for case in CASES:
            for train in (False, True):
                row = measure(backbone, head, case, train=train, repeats=arguments.repeats)
                results.append(row)
                print(
                    f"{row['case']:30}{row['what']:15}{row['forest_ms']:>6.0f} ms{row['rows_ms']:>6.0f} ms"
                    f"{row['speed_up']:>9.2f}x{row['token_ratio']:>8.2f}{row['share_of_ratio']:>7.2f}"
                    f"{row['max_difference']:>9.0e}",
                    flush=True,
                )
        costs = [overhead(backbone, head, case, arguments.repeats) for case in (CASES[0], CASES[4])]
        for cost in costs:
            percent, bare = 100 * cost["overhead"], cost["bare_ms"]
            print(f"framework's overhead, {cost['case']}: {percent:+.1f} % of {bare:.0f} ms")
        peaks = memory(directory)
        for peak in peaks:
            mebibytes, kibibytes = peak["peak_bytes"] / 2**20, peak["bytes_a_token"] / 2**10
            print(
                f"memory of a training step on {peak['tokens']:.0f} tokens: {mebibytes:.0f} MiB, "
                f"{kibibytes:.0f} KiB a token"
            )
    if arguments.output or arguments.keep:
        machine = {
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        found = {"machine": machine, "results": results, "overhead": costs, "memory": peaks}
        import tables

        tables.save("sharing", found, arguments.output, is_kept=arguments.keep)


if __name__ == "__main__":
    main()
