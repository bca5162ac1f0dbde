"""The memory that is predicted, beside that of tensors that are there."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from emulated_flash import EmulatedFlash
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from basereward import Comparison, RewardModel
from basereward.config import Component, LoraConfig, RunConfig, TrainConfig, load_run
from basereward.costs.architecture import Architecture
from basereward.costs.communication import communication
from basereward.costs.flops import Counts
from basereward.costs.memory import activations, memory
from basereward.planning.meta_model import meta_model
from basereward.plugins import PluginManager
from basereward.training import optimizers, parameter_groups
from basereward.training.lora import Adapters
from basereward.training.resolve import resolve_run


def run_of(tmp_path: Path, model: Path, *, backbone: str = "", **settings: Any) -> RunConfig:
    """Return a run on a model, its components' options filled in."""
    kind = tiny.backbone_of(model.name)
    (tmp_path / "run.toml").write_text(
        f"""
        output = "run"
        backbone = {{ name = "{kind}", model = "{model}"{backbone} }}
        data.train = [{{ name = "basereward", path = "rows.jsonl" }}]
        """
    )
    run = load_run(tmp_path / "run.toml")
    object.__setattr__(run, "train", TrainConfig(**settings))
    return resolve_run(run, PluginManager())


def rows(with_images: bool) -> list[Comparison]:
    return [
        Comparison(
            tiny.sentence(number, 20),
            [tiny.sentence(number + 5, 10), tiny.sentence(number + 9, 10)],
            images=[tiny.image(112, 112)] if with_images else [],
            ranks=[0, 1],
        )
        for number in range(2)
    ]


def size(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "adamw-8bit"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {}),
        ("qwen2_5_vl", {"freeze": ("vision",)}),
        ("qwen3_vl", {"lora": LoraConfig(rank=4, whole_parts=("projector",)), "freeze": ("vision",)}),
    ],
    ids=["all", "frozen", "lora"],
)
def test_weights_gradients_and_moments_take_the_bytes_that_are_predicted(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str, settings: dict[str, Any], optimizer: str
) -> None:
    if optimizer == "adamw-8bit":
        pytest.importorskip("bitsandbytes")
    run = run_of(tmp_path, tiny_models[kind], optimizer=optimizer, ema_decay=0.9, **settings)
    model = RewardModel.build(backbone=run.backbone, head=run.head, plugins=PluginManager())
    Adapters(model.backbone, run.train, "")
    parts = parameter_groups.trainable_parts(model.part_parameters(), run.train)
    trained = [parameter for parameters in parts.values() for parameter in parameters]
    steps = optimizers.build(parts, run.train)
    for parameter in trained:  # whatever the gradient, its size is the parameter's
        parameter.grad = torch.ones_like(parameter)
    steps.step()
    state = {name: tensor for name, tensor in optimizers.state_of(steps).items() if "qmap" not in name}
    if optimizer == "adamw-8bit":  # counts its steps in Python
        state = {name: tensor for name, tensor in state.items() if not name.endswith(".step")}
        assert any(tensor.dtype == torch.uint8 for tensor in state.values())

    bare, _ = meta_model(run, PluginManager())
    Adapters(bare.backbone, run.train, "")
    bare_parts = parameter_groups.trainable_parts(bare.part_parameters(), run.train)
    architecture = Architecture.of(bare)
    assert architecture == Architecture.of(model)
    assert architecture is not None
    found = memory(bare, bare_parts, architecture, run.train, Counts(), num_ranks=1, bf16=False)
    assert found.weights == size(list(model.paradigm.parameters()))
    assert found.gradients == found.averages == size([parameter.grad for parameter in trained])
    assert found.optimizer == size(list(state.values()))
    assert found.working_weights == 0
    assert found.activations == found.activation_gradients == 0
    assert found.total == found.weights + 2 * found.gradients + found.optimizer


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("kind", "freeze"),
    [
        ("llama", ()),
        ("qwen2", ()),
        ("qwen2_vl", ()),
        ("qwen2_5_vl", ()),
        ("qwen2_5_vl", ("vision",)),
        ("qwen3_vl", ("vision",)),
        ("internvl-qwen2", ()),
        ("internvl-qwen2", ("vision",)),
    ],
)
def test_activations_are_those_that_autograd_keeps_of_all_layers_but_the_last(
    tiny_models: dict[str, Path], kind: str, freeze: tuple[str, ...], bf16: bool
) -> None:
    component = tiny.backbone_of(kind)
    model = RewardModel.build(
        backbone=Component(component, {"model": str(tiny_models[kind])}), plugins=PluginManager()
    )
    for part in freeze:
        model.backbone.parts()[part].requires_grad_(False)
    prepared = [model.paradigm.prepare(row) for row in rows(kind not in tiny.LM_KINDS)]
    architecture = Architecture.of(model)
    assert architecture is not None
    window = architecture.vision.window if architecture.vision else None
    counts = sum((Counts.of_tree(item.content.tree, window=window) for item in prepared), Counts())

    # Weights aren't activations; nor are their copies in bf16.
    shapes = {
        tuple(shape) for item in model.paradigm.parameters() for shape in (item.shape, item.shape[::-1])
    }
    weights = {item.untyped_storage().data_ptr() for item in model.paradigm.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights and not (tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in shapes):
            kept[place] = tensor
        return tensor

    with (
        saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        model.paradigm.loss_of(prepared)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    whole, fewer = (
        activations(each, counts, recomputes=False, bf16=bf16).kept
        for each in (architecture, replace(architecture, language=replace(architecture.language, number=2)))
    )
    # Of the last of three layers the model keeps little but what the responses' ends need, which isn't
    # predicted: with 28 layers it's 3 %.
    assert fewer < measured < min(1.25 * fewer, whole)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["llama", "qwen2_5_vl", "qwen3_vl", "internvl-qwen2"])
def test_a_layer_keeps_on_a_gpu_what_is_predicted_to_a_twentieth(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, kind: str, bf16: bool
) -> None:
    # The autograd function of a GPU, with its kernel emulated: it keeps the same tensors.
    for module in ("basereward.forest.attention", "basereward.backbones.vision_attention"):
        monkeypatch.setattr(f"{module}.packed_kernel", lambda query: EmulatedFlash)
    component = Component(tiny.backbone_of(kind), {"model": str(tiny_models[kind])})
    model = RewardModel.build(backbone=component, plugins=PluginManager())
    prepared = [model.paradigm.prepare(row) for row in rows(kind not in tiny.LM_KINDS)]
    architecture = Architecture.of(model)
    assert architecture is not None
    counts = sum((Counts.of_tree(item.content.tree) for item in prepared), Counts())
    weights = {
        tuple(shape) for item in model.paradigm.parameters() for shape in (item.shape, item.shape[::-1])
    }
    others = {item.untyped_storage().data_ptr(): item for item in model.paradigm.parameters()}
    kept: dict[int, Tensor] = {}
    is_within = False

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        is_copy = tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in weights
        if is_within and place not in others and not is_copy:
            kept[place] = tensor
        elif not is_within:  # such as rotary positions, which all layers keep together
            others[place] = tensor
        return tensor

    def enter(*_: object) -> None:
        nonlocal is_within
        is_within = True

    def leave(*_: object) -> None:
        nonlocal is_within
        is_within = False

    # The second of the decoder's layers: what it shares with the first is counted there.
    layer = model.backbone.decoder.decoder.layers[1]
    layer.register_forward_pre_hook(enter)
    layer.register_forward_hook(leave)
    with (
        saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        model.paradigm.loss_of(prepared)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    two, one = (
        activations(
            replace(architecture, language=replace(architecture.language, number=number)),
            counts,
            recomputes=False,
            bf16=bf16,
        ).kept
        for number in (2, 1)
    )
    assert measured == pytest.approx(two - one, rel=0.05)


def test_recomputation_keeps_a_block_and_the_inputs_of_the_others(tiny_models: dict[str, Path]) -> None:
    model = RewardModel.build(
        backbone=Component("causal-lm", {"model": str(tiny_models["llama"])}), plugins=PluginManager()
    )
    architecture = Architecture.of(model)
    assert architecture is not None
    counts = Counts.of_lengths(20, [10, 10])  # 40 tokens
    whole, less = (
        activations(architecture, counts, recomputes=recomputes, bf16=False) for recomputes in (False, True)
    )
    stream = 40 * 32 * 4  # tokens x width x bytes
    # Norms twice 32 + 32, what they give twice 32, queries and results 32 each, 4 x 48 in the MLP; keys and
    # values of 16 each; a log-sum-exp of 4 heads.
    block = 40 * 4 * (2 * 64 + 2 * 32 + 2 * 32 + 4 * 48 + 2 * 16 + 4)
    assert whole == (3 * block + 3 * stream, block)
    assert less == (3 * stream + block + 3 * stream, block)


def test_a_sharded_process_holds_its_rows_and_the_blocks_that_compute(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    run = run_of(tmp_path, tiny_models["llama"], parallel="fsdp")
    model, _ = meta_model(run, PluginManager())
    parts = parameter_groups.trainable_parts(model.part_parameters(), run.train)
    architecture = Architecture.of(model)
    assert architecture is not None

    def found(num_ranks: int, *, bf16: bool = True, **settings: Any) -> Any:
        config = TrainConfig(parallel="fsdp", **settings)
        return memory(model, parts, architecture, config, Counts(), num_ranks=num_ranks, bf16=bf16)

    parameters = [parameter for items in parts.values() for parameter in items]
    # The first process has the larger share of rows that can't be divided evenly.
    rows_each = [(math.ceil(len(item) / 5), item.numel() // len(item)) for item in parameters]
    held = sum(number * width for number, width in rows_each)
    five = found(5)
    assert (five.weights, five.gradients) == (4 * held, 4 * held)
    assert five.optimizer == 8 * held + 4 * len(parameters)
    assert found(10, shard_ranks=5).weights == five.weights
    # Two blocks in bf16, one's gradients in bf16 and in fp32; all else with its gradients in fp32.
    block = sum(item.numel() for item in model.backbone.blocks()[0].parameters())
    rest = sum(item.numel() for item in parameters) - 3 * block
    assert five.working_weights == 2 * 2 * block + (2 + 4) * block + (4 + 4) * rest
    assert found(5, bf16=False).working_weights == 2 * 4 * block + (4 + 4) * block + (4 + 4) * rest


def test_in_one_process_bf16_copies_are_made_of_what_a_gradient_passes(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    run = run_of(tmp_path, tiny_models["qwen2_5_vl"], freeze=("vision",))
    model, _ = meta_model(run, PluginManager())
    parts = parameter_groups.trainable_parts(model.part_parameters(), run.train)
    architecture = Architecture.of(model)
    assert architecture is not None
    counts = Counts.of_lengths(20, [10, 10])
    found = memory(model, parts, architecture, run.train, counts, num_ranks=1, bf16=True)
    # While the backward pass is in a block, there are about as many gradients as results.
    assert found.activations > 3 * found.activation_gradients > 0.9 * found.activations
    linear = [
        module.weight.numel()
        for name in ("projector", "language")
        for module in model.backbone.parts()[name].modules()
        if isinstance(module, nn.Linear)
    ]
    assert found.working_weights == 2 * sum(linear)


def test_processes_that_divide_layers_hold_their_part_of_them(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    run = run_of(tmp_path, tiny_models["llama"], parallel="fsdp", tensor_ranks=2)
    model, _ = meta_model(run, PluginManager())
    parts = parameter_groups.trainable_parts(model.part_parameters(), run.train)
    architecture = Architecture.of(model)
    assert architecture is not None
    counts = Counts.of_lengths(20, [10, 10])
    found = memory(model, parts, architecture, run.train, counts, num_ranks=2, bf16=False)
    parameters = [parameter for items in parts.values() for parameter in items]
    linear = 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    held = sum(item.numel() for item in parameters) - linear // 2
    assert (found.weights, found.gradients) == (4 * held, 4 * held)
    # Norms and what they give are whole; of queries, results, the MLP, keys, values and heads there is half.
    block = 40 * 4 * (2 * 64 + 2 * 32 + (2 * 32 + 4 * 48 + 2 * 16 + 4) // 2)
    assert found.activation_gradients == block
    sent = communication(model, run.train, num_ranks=2, num_passes=1, bf16=False, tokens=40)
    # Six sums of hidden states and six of their gradients; each of two processes receives as much as it has.
    assert sent == 6 * 40 * 32 * (4 + 4)


def test_quantized_weights_take_half_a_byte_and_their_scales(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    run = run_of(tmp_path, tiny_models["llama"], backbone=", quantize = '4bit'", lora=LoraConfig(rank=4))
    model, _ = meta_model(run, PluginManager())
    Adapters(model.backbone, run.train, "")
    parts = parameter_groups.trainable_parts(model.part_parameters(), run.train)
    architecture = Architecture.of(model)
    assert architecture is not None
    found = memory(model, parts, architecture, run.train, Counts(), num_ranks=1, bf16=True)
    linear = 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    # Each [m, n] gets 4 rows more and 4 columns: 4 x (m + n).
    adapters = 3 * 4 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))
    other = 512 * 32 + 7 * 32 + 32 * 32 + 32 + 32 + 1  # embeddings, norms, head
    scales = linear / 64 + 4 * linear / (64 * 256)
    assert found.weights == pytest.approx(4 * (other + adapters) + linear / 2 + scales, abs=21)
    assert found.working_weights == 2 * adapters
