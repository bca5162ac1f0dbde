"""The steps of everything.py that compute with a model: is it right, does it wait, how fast is it."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import tiny
import torch
from measure import DEVICE, milliseconds, peak, record, wait
from torch import Tensor

from basereward.backbones.base import Backbone
from basereward.backbones.causal_lm import CausalLM
from basereward.backbones.internvl import InternVL
from basereward.backbones.qwen_vl import QwenVL
from basereward.forest import Forest, Tree
from basereward.heads import MLP


def build(directory: Path, kind: str, **options: Any) -> Backbone:
    """Return a tiny backbone of a kind, whose model is saved where it isn't yet."""
    if kind in tiny.VL_KINDS:
        saved, made = tiny.save_qwen_vl, QwenVL
    elif kind in tiny.INTERNVL_KINDS:
        saved, made = tiny.save_internvl, InternVL
    else:
        saved, made = tiny.save_causal_lm, CausalLM
    if not (directory / kind).exists():
        saved(directory / kind, kind)
    return made(model=str(directory / kind), **options)


def rewards_and_gradients(backbone: Backbone, head: MLP, forest: Forest) -> tuple[Tensor, dict[str, Tensor]]:
    """Return rewards [N] and gradients on the CPU in fp64."""
    backbone.zero_grad()
    rewards = head(backbone(forest), forest)
    weights = torch.linspace(-1, 1, len(rewards), device=rewards.device)
    (rewards * weights).sum().backward()
    named = backbone.named_parameters()
    gradients = {name: value.grad.cpu().double() for name, value in named if value.grad is not None}
    return rewards.detach().cpu().double(), gradients


def apart(one: Tensor, other: Tensor) -> float:
    """Return the largest difference over the largest value."""
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-30))


def models(dry: bool) -> None:
    """Every kind of model on the device against fp64 on the CPU: rewards, gradients, forest and rows."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        kinds = (*tiny.VL_KINDS, *tiny.INTERNVL_KINDS, *tiny.LM_KINDS)
        for kind in kinds[1::3] if dry else kinds:
            rows = tiny.comparisons(images=kind not in tiny.LM_KINDS)
            torch.manual_seed(1)
            head = MLP(32)
            # torch's product of a mixture's experts has no fp64.
            exact = build(directory, kind).to(torch.float32 if "moe" in kind else torch.float64)
            exact.decoder.use("plain")
            wanted, wanted_grads = rewards_and_gradients(exact, head, exact.forest(rows, shared=False))
            for precision in ("fp32", "bf16"):
                backbone = build(directory, kind).to(DEVICE)
                forest = backbone.forest(rows).to(DEVICE)
                context = torch.autocast(DEVICE, torch.bfloat16) if precision == "bf16" else nullcontext()
                with context:
                    rewards, grads = rewards_and_gradients(backbone, on_device(head), forest)
                worst = max(apart(grads[name], wanted_grads[name]) for name in wanted_grads)
                record(kind=kind, precision=precision, rewards=apart(rewards, wanted), gradients=worst)
                assert rewards.isfinite().all(), kind
                if precision == "fp32":
                    # Sums of some hundred terms, each to 6e-8, in a few dozen layers of operations.
                    assert apart(rewards, wanted) < 1e-3, f"{kind}: rewards are wrong"


def on_device(head: MLP) -> MLP:
    """Return a copy of a head on the device."""
    copy = MLP(32)
    copy.load_state_dict(head.state_dict())
    return copy.to(DEVICE)


def waits(dry: bool) -> None:
    """The places of a pass that wait for the device, by file and line."""
    with tempfile.TemporaryDirectory() as temporary:
        backbone = build(Path(temporary), "qwen2_5_vl").to(DEVICE)
        head = MLP(32).to(DEVICE)
        forest = backbone.forest(tiny.comparisons()).to(DEVICE)
        head(backbone(forest), forest).sum().backward()
        wait()
        if DEVICE == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            head(backbone(forest), forest).sum().backward()
        if DEVICE == "cuda":
            torch.cuda.set_sync_debug_mode("default")
        places = Counter(f"{warning.filename}:{warning.lineno}" for warning in caught)
        record(waits=sum(places.values()), places=dict(places.most_common(20)))


@dataclass(frozen=True)
class Batch:
    """Trees of one micro-batch: for each its prompt's tokens and its responses'."""

    name: str
    trees: Sequence[tuple[int, Sequence[int]]]

    def made(self, scale: int) -> list[Tree]:
        """Return the trees, with lengths over `scale`, of random tokens."""

        def ids(count: int) -> list[int]:
            return torch.randint(5, 500, (max(1, count // scale),)).tolist()

        return [Tree.of_text(ids(prompt), [ids(count) for count in counts]) for prompt, counts in self.trees]


BATCHES = (
    Batch("8 pairs", [(2000, (400, 400))] * 8),
    Batch("2 best of 16", [(2000, (400,) * 16)] * 2),
    Batch("ragged", [(1100, (100, 300))] * 12 + [(60, (50, 1500))] * 4),
    Batch("one long prompt", [(8000, (100, 100))] + [(500, (200, 200))] * 8),
)


def decoder_of_7b(dry: bool, num_layers: int, dtype: torch.dtype) -> CausalLM:
    """Return a decoder of Qwen2.5-7B's shapes with random weights, made on the device."""
    from transformers import Qwen2Config, Qwen2Model

    sizes = {
        "vocab_size": 1024, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": num_layers,
        "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 32768,
    }  # fmt: skip
    if dry:
        sizes |= {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
        sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(DEVICE):
            backbone = CausalLM.of_model(Qwen2Model(Qwen2Config(**sizes)))
    finally:
        torch.set_default_dtype(before)
    backbone.pad = 0
    return backbone


def attention(dry: bool) -> None:
    """Forward and both passes of four batches: the forest, its dense reference, and a row a response."""
    backbone = decoder_of_7b(dry, 14, torch.bfloat16)
    for batch in BATCHES:
        torch.manual_seed(0)
        trees = batch.made(200 if dry else 1)
        tokens = sum(len(tree.prompt) + sum(map(len, tree.responses)) for tree in trees)
        for form in ("forest", "plain", "dense"):
            backbone.decoder.use(form)
            facts: dict[str, Any] = {"batch": batch.name, "form": form, "tokens": tokens}
            try:
                # As in training: trees in one row, without padding; rows of single responses can't be.
                row_tokens = None if form == "plain" else math.inf
                forest = backbone.pack(trees, shared=form != "plain", row_tokens=row_tokens).to(DEVICE)
                facts["places"] = forest.input_ids.numel()

                def forward(forest: Forest = forest) -> Tensor:
                    hidden: Tensor = backbone(forest)
                    return hidden

                def both(forest: Forest = forest) -> None:
                    backbone(forest).float().square().mean().backward()
                    backbone.zero_grad()

                repeats = 1 if dry else 3
                with torch.no_grad():
                    facts["forward_ms"] = milliseconds(forward, repeats)
                with peak(facts):
                    facts["both_ms"] = milliseconds(both, repeats)
            except torch.OutOfMemoryError as error:
                facts["error"] = str(error).splitlines()[0]
                backbone.zero_grad()
                torch.cuda.empty_cache()
            record(**facts)


def vision(dry: bool) -> None:
    """The vision tower of Qwen2.5-VL on eight pictures, by our attention and by transformers' sdpa."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

    side, pictures = (8, 2) if dry else (72, 8)  # patches along a side
    tower = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
    tower |= {"out_hidden_size": 64, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]}
    if dry:
        tower |= {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2}
        tower |= {"fullatt_block_indexes": [1]}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 2, 4]}
    text = {**tiny.text_config(rope_parameters=rope), "hidden_size": 64}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=tower)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(DEVICE):
            model = Qwen2_5_VLModel(config)
    finally:
        torch.set_default_dtype(before)
    patches = torch.randn(pictures * side**2, 3 * 2 * 14**2, device=DEVICE, dtype=torch.bfloat16)
    grids = torch.tensor([[1, side, side]] * pictures, device=DEVICE)
    for name in (QwenVL.vision_attention(), "sdpa"):
        model.set_attn_implementation({"vision_config": name})

        def forward() -> None:
            model.get_image_features(patches, grids, return_dict=True)

        with torch.no_grad():
            time_ms = milliseconds(forward, 3)
            facts = {"attention": name, "forward_ms": time_ms, "pictures": pictures, "side": 14 * side}
            record(**facts, kernels=launches(forward))


def launches(run: Callable[[], object]) -> int:
    """Return how many kernels a call starts; on a CPU how many operations."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if DEVICE == "cuda" else [])]
    with profile(activities=kinds) as profiled:
        run()
        wait()
    if DEVICE == "cpu":
        return sum(event.name.startswith("aten::") for event in profiled.events())
    return sum("LaunchKernel" in event.name for event in profiled.events())


def scoring(dry: bool) -> None:
    """Rewards of a 7B decoder in fp32, TF32 and bf16: speed, differences, pairs that change places."""
    num_pairs, scale = (4, 50) if dry else (8, 1)
    torch.manual_seed(0)
    trees = Batch("pairs", [(1000, (300, 300))] * num_pairs).made(scale)
    wanted: Tensor | None = None
    for name, dtype, tf32 in (
        ("fp32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bf16", torch.bfloat16, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        backbone = decoder_of_7b(dry, 28, torch.float32)
        torch.manual_seed(1)
        head = MLP(backbone.dim).to(DEVICE)
        backbone.to(dtype)
        forest = backbone.pack(trees, row_tokens=math.inf).to(DEVICE)
        with torch.no_grad():
            rewards = head(backbone(forest), forest)
            time_ms = milliseconds(lambda backbone=backbone, forest=forest: backbone(forest), 2)
        wanted = rewards if wanted is None else wanted
        flipped = sum(
            bool((rewards[i] - rewards[j]) * (wanted[i] - wanted[j]) < 0)
            for i, j in combinations(range(len(rewards)), 2)
        )
        record(
            precision=name,
            pairs_per_s=1e3 * num_pairs / time_ms,
            difference=float((rewards - wanted).abs().max()),
            deviation=float(wanted.std()),
            flipped=flipped,
            num_compared=len(rewards) * (len(rewards) - 1) // 2,
        )
        del backbone, head
    torch.backends.cuda.matmul.allow_tf32 = False
