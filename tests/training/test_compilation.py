"""Compiled layers: two graphs for all shapes, no break in any, and the results of layers that are not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import runs
import tiny
import torch
from compiled import Operator, Steps, take_steps
from ranks import in_ranks
from rounding import TINY_GRADIENT, adamw_bound, within
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from basereward import ConfigError, train
from basereward.backbones.causal_lm import CausalLM
from basereward.backbones.qwen_vl import QwenVL
from basereward.backbones.transformers_backbone import TransformersBackbone
from basereward.config import LoraConfig
from basereward.forest import Forest
from basereward.forest.packed_runs import packed_runs
from basereward.training.activation_checkpointing import checkpoint_activations
from basereward.training.compilation import compile_blocks
from basereward.training.distributed import ProcessGroup

# torch warns of what its own compiler does: it looks whether a layer's input has a gradient, and makes an
# autograd function.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def no_graphs_of_others() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def build(directory: Path, kind: str, dtype: str) -> TransformersBackbone:
    return (QwenVL if kind in tiny.VL_KINDS else CausalLM)(model=str(directory), dtype=dtype)


def forests(backbone: TransformersBackbone, kind: str) -> list[Forest]:
    """Return batches of four shapes."""
    rows = tiny.comparisons(images=kind in tiny.VL_KINDS)
    return [
        replace(
            backbone.pack([backbone.encode(row) for row in part], row_tokens=inf),
            reads="ends",
        )
        for part in (rows[:2], rows, rows[1:], rows[:3])
    ]


@pytest.mark.parametrize("kind", ["llama", "qwen2_5_vl", "qwen3_vl"])
def test_all_layers_and_shapes_share_two_graphs(tiny_models: dict[str, Path], kind: str) -> None:
    # Without data, through the operators that a GPU has.
    backbone = build(tiny_models[kind], kind, "bfloat16")
    batches = forests(backbone, kind)
    counter = CompileCounter()
    backbone.to("meta").train()
    compile_blocks(backbone.blocks_to_compile(), counter)
    for forest in batches:
        backbone(forest.to("meta")).sum().backward()
    assert counter.frame_count == 2
    assert not counters["graph_break"]


def test_hidden_states_and_gradients_are_those_of_layers_that_are_not_compiled(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("basereward.forest.attention", "basereward.backbones.vision_attention"):
        monkeypatch.setattr(f"{module}.packed_kernel", lambda query: Operator)
    plain, compiled = (build(tiny_models["qwen3_vl"], "qwen3_vl", "float32") for _ in range(2))
    compile_blocks(compiled.blocks_to_compile(), "eager")
    checkpoint_activations(compiled.blocks())
    for given in forests(plain, "qwen3_vl"):
        # As `to` makes them for a GPU.
        forest = replace(given, packed=packed_runs(*given.runs(), given.input_ids.numel()))
        states = []
        for backbone in (plain, compiled):
            backbone.zero_grad()
            states.append(backbone(forest).flatten(0, 1)[forest.ends])
            states[-1].square().sum().backward()
        torch.testing.assert_close(*states, **within(TINY_GRADIENT))
        for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, **within(TINY_GRADIENT))


def assert_alike(compiled: Steps, plain: Steps, settings: dict[str, object]) -> None:
    assert compiled.num_breaks == 0
    # Layers share their graphs, one for each of three shapes: sizes are fixed by the emulated operators, as
    # they aren't by torch's own, above. Where embeddings are frozen the first layer has as many of its own,
    # since its input has no gradient.
    assert compiled.num_graphs == (6 if "lora" in settings else 3)
    assert plain.num_graphs == 0
    error = 2**-7 if settings.get("precision") == "bf16" else TINY_GRADIENT
    assert compiled.losses == pytest.approx(plain.losses, **{"abs": error, "rel": error})
    assert compiled.weights.keys() == plain.weights.keys()
    drift = within(adamw_bound(3, 1e-3))
    for name, value in compiled.weights.items():
        torch.testing.assert_close(value, plain.weights[name], **drift, msg=name)


def test_adapters_train_in_compiled_layers(tiny_models: dict[str, Path]) -> None:
    settings = {"lora": LoraConfig(rank=2, dropout=0.0), "activation_checkpointing": True}
    compiled, plain = (
        take_steps(ProcessGroup(), tiny_models["llama"], is_compiled, settings)
        for is_compiled in (True, False)
    )
    assert_alike(compiled, plain, settings)


@pytest.mark.external
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"parallel": "fsdp"}, marks=pytest.mark.slow),
        # As on a GPU: blocks are gathered in bf16.
        {"parallel": "fsdp", "precision": "bf16", "activation_checkpointing": True},
        {"parallel": "fsdp", "lora": LoraConfig(rank=2, dropout=0.0)},
        {"parallel": "ddp"},
    ],
    ids=["fsdp", "fsdp, bf16, recomputed", "fsdp, lora", "ddp"],
)
def test_layers_of_several_processes_are_compiled(
    tiny_models: dict[str, Path], settings: dict[str, object]
) -> None:
    # Sharding comes last: a block's parameters are gathered before its graph is called, and in its backward
    # pass before that graph's.
    compiled, plain = (
        in_ranks(take_steps, tiny_models["llama"], is_compiled, settings, "aot_eager")
        for is_compiled in (True, False)
    )
    for own, other in zip(compiled, plain, strict=True):
        assert_alike(own, other, settings)


def test_a_cpu_is_told_that_nothing_is_compiled_there(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    data = runs.write_rows(tmp_path / "train.jsonl", runs.rows(4, seed=1))
    run = runs.config(
        tmp_path / "run", tiny_models["llama"], data, max_steps=1, compile=True, precision="fp32"
    )
    with pytest.raises(ConfigError, match=r"train\.compile is for GPUs in bf16, not cpu in fp32"):
        train(run, progress=False, plots=False)
