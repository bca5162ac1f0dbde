"""The steps of everything.py, each run as `python tests/gpu/steps.py NAME [--dry]` in a process of its own.

A line that is printed and begins with `{` is a record. `--dry` takes the CPU and tiny sizes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import tiny
import torch
from torch import Tensor

from basereward import ops
from basereward.backbones.base import Backbone
from basereward.backbones.causal_lm import CausalLM
from basereward.backbones.internvl import InternVL
from basereward.backbones.qwen_vl import QwenVL
from basereward.forest import Forest, Tree
from basereward.heads import MLP

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def record(**facts: Any) -> None:
    """Print a record."""
    print(json.dumps(facts), flush=True)


def wait() -> None:
    """Wait for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def milliseconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Return the median time of a call, after two that are not counted."""
    times = []
    for number in range(repeats + 2):
        wait()
        start = time.perf_counter()
        run()
        wait()
        if number > 1:
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


@contextmanager
def peak(facts: dict[str, Any]) -> Iterator[None]:
    """Add the most memory that a block takes."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    yield
    if DEVICE == "cuda":
        facts["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9


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


WORDS = ("cat", "dog", "bird", "red", "blue", "green")


def training_files(directory: Path, dry: bool) -> tuple[Path, Path]:
    """Write a Qwen2.5-VL and pairs with pictures, and return both."""
    rows = []
    for number in range(16 if dry else 128):
        tiny.image(*((56, 56) if dry else (448, 448)), number).save(directory / f"{number}.png")
        words = [f"{WORDS[(number + shift) % len(WORDS)]} " * (4 if dry else 100) for shift in (0, 3)]
        rows.append({"prompt": f"what is it {number}", "images": [f"{number}.png"], "responses": words})
    path = directory / "rows.jsonl"
    path.write_text("".join(json.dumps({**row, "ranks": [0, 1]}) + "\n" for row in rows), encoding="utf-8")
    sizes = {}
    if not dry:
        sizes = {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 12}
        sizes |= {"num_attention_heads": 16, "num_key_value_heads": 2}
    return tiny.save_qwen_vl(directory / "model", "qwen2_5_vl", **({} if dry else sizes)), path


def digest(directory: Path) -> str:
    """Return the SHA-256 of a saved model's weights."""
    found = hashlib.sha256()
    for path in sorted(directory.glob("*.safetensors")):
        found.update(path.read_bytes())
    return found.hexdigest()


def train(run_dir: Path, model: Path, rows: Path, *more: str, launcher: Sequence[str] = ()) -> float:
    """Run a training by the command that a user types, and return its seconds."""
    settings = {
        "backbone": f'{{name = "qwen-vl", model = "{model}"}}',
        "data.train": f'[{{name = "basereward", path = "{rows}"}}]',
        "train.batch_size": "4",
        "train.max_steps": "5",
        "train.log_every": "1",
        "train.device": f'"{DEVICE}"',
    }
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    file = run_dir.with_suffix(".toml")
    file.write_text(f'output = "{run_dir}"\n{lines}', encoding="utf-8")
    command = [*(launcher or [sys.executable]), "-m", "basereward", "train", str(file), *more]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, file=sys.stderr)
    assert done.returncode == 0, done.stderr[-2000:]
    return time.perf_counter() - start


def steps_of(run_dir: Path) -> list[Mapping[str, Any]]:
    """Return the records of a run's steps."""
    lines = (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [item for item in map(json.loads, lines) if item["kind"] == "step"]


def training(dry: bool) -> None:
    """Five steps on pictures by `basereward train`, twice, with and without `deterministic`."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        model, rows = training_files(directory, dry)
        for deterministic in ("false", "true"):
            digests = []
            for number in range(2):
                run_dir = directory / f"run-{deterministic}-{number}"
                seconds = train(run_dir, model, rows, "--set", f"train.deterministic={deterministic}")
                digests.append(digest(run_dir / "last"))
                last = steps_of(run_dir)[-1]
                record(deterministic=deterministic, seconds=seconds, last_step=last)
            record(deterministic=deterministic, same_bytes=len(set(digests)) == 1)


def sharded(dry: bool) -> None:
    """One process under torchrun with FSDP2."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        model, rows = training_files(directory, True)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
        run_dir = directory / "run"
        seconds = train(run_dir, model, rows, "--set", "train.parallel=fsdp", launcher=launcher)
        record(seconds=seconds, num_steps=len(steps_of(run_dir)), digest=digest(run_dir / "last"))


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
    global DEVICE
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--dry", action="store_true", help="on the CPU, at tiny sizes")
    arguments = parser.parse_args()
    if arguments.dry:
        DEVICE = "cpu"
    STEPS[arguments.step](arguments.dry)


if __name__ == "__main__":
    main()
