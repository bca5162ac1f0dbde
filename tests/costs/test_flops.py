"""The predicted FLOPs of a training step, beside those that torch counts while it computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

from basereward import Comparison, RewardModel
from basereward.config import Component
from basereward.costs.accelerators import ACCELERATORS, peak_flops
from basereward.costs.architecture import Architecture, Layers, Matrices
from basereward.costs.flops import Counts, StepFlops, flops
from basereward.plugins import PluginManager
from basereward.protocols import Paradigm

WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
Build = Callable[..., RewardModel]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return a function that builds models wide enough for their matrices to outweigh their attention."""

    def build(
        kind: str, freeze: tuple[str, ...] = (), attention: str = "forest", **options: Any
    ) -> RewardModel:
        root = tmp_path_factory.mktemp(kind)
        with pytest.MonkeyPatch.context() as patch:
            sizes = tiny.text_config
            patch.setattr(tiny, "text_config", lambda **more: sizes(**{**WIDE, **more}))
            name, save = {
                **dict.fromkeys(tiny.LM_KINDS, ("causal-lm", tiny.save_causal_lm)),
                **dict.fromkeys(tiny.VL_KINDS, ("qwen-vl", save_wide_qwen_vl)),
                **dict.fromkeys(tiny.INTERNVL_KINDS, ("internvl", save_wide_internvl)),
            }[kind]
            model = RewardModel.build(
                backbone=Component(name, {"model": str(save(root, kind)), "attention": attention}),
                paradigm=Component("scalar", options),
                plugins=PluginManager(),
            )
        for part in freeze:
            for parameter in model.part_parameters()[part]:
                parameter.requires_grad_(False)
        return model

    return build


def save_wide_qwen_vl(directory: Path, kind: str) -> Path:
    """Write a Qwen-VL whose tower and decoder are both wide."""
    config = AutoConfig.from_pretrained(tiny.save_qwen_vl(directory / "narrow", kind))
    vision, text = config.vision_config, config.text_config
    if kind == "qwen2_vl":
        vision.embed_dim, vision.hidden_size = 128, 256
    else:
        vision.hidden_size, vision.intermediate_size, vision.out_hidden_size = 128, 256, 256
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [8, 12, 12]}
    if kind.startswith("qwen3_vl"):
        text.head_dim = 64
    return save_widened(directory, config)


def save_wide_internvl(directory: Path, kind: str) -> Path:
    """Write an InternVL whose tower and decoder are both wide."""
    config = AutoConfig.from_pretrained(tiny.save_internvl(directory / "narrow", kind))
    config.vision_config.hidden_size, config.vision_config.intermediate_size = 128, 256
    return save_widened(directory, config)


def save_widened(directory: Path, config: Any) -> Path:
    """Write a model of new sizes with the other files of the narrow one."""
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(directory)
    for path in (directory / "narrow").iterdir():
        if not (directory / path.name).exists():
            path.rename(directory / path.name)
    return directory


def rows(kind: str) -> list[Comparison]:
    """Return two comparisons of like lengths, with an image each where the model reads some."""
    return [
        Comparison(
            tiny.sentence(number, 10),
            [tiny.sentence(number + 2, 12), tiny.sentence(number + 4, 12)],
            images=[] if kind in tiny.LM_KINDS else [tiny.image(112, 112)],
            ranks=[0, 1],
        )
        for number in range(2)
    ]


def counted(model: RewardModel, prepared: list[Any]) -> tuple[int, int]:
    """Return the FLOPs of the forward pass, and of both passes, by torch's own counter."""
    # Of attention the counter sees plain products alone.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss = model.paradigm.loss_of(prepared).loss
        forward = counter.get_total_flops()
        loss.backward()
    return forward, counter.get_total_flops()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("kind", "freeze"),
    [
        ("llama", ()),
        ("qwen2", ()),
        ("qwen2_vl", ()),
        ("qwen2_5_vl", ()),
        ("qwen2_5_vl", ("vision",)),
        ("qwen2_5_vl", ("vision", "projector", "language")),
        ("qwen2_5_vl", ("language",)),
        ("qwen3_vl", ("vision",)),
        ("internvl-qwen2", ()),
        ("internvl-qwen2", ("vision",)),
    ],
)
def test_flops_are_those_that_torch_counts(
    build: Build, kind: str, freeze: tuple[str, ...], shared: bool
) -> None:
    model = build(kind, freeze, "dense", share_prompts=shared)
    prepared = [model.paradigm.prepare(row) for row in rows(kind)]
    forward, both = counted(model, prepared)

    step = StepFlops(model)
    architecture = step.architecture
    assert architecture is not None
    window = architecture.vision.window if architecture.vision else None
    counts = sum(
        (Counts.of_tree(item.content.tree, window=window, shared=shared) for item in prepared), Counts()
    )
    predicted = flops(architecture, counts)
    assert step(prepared) == predicted.model == predicted.total
    # With a dense mask every place of a row is computed, and every pair of them.
    trees = [item.content.tree for item in prepared]
    num_rows, width = model.backbone.pack(trees, shared=shared).input_ids.shape
    dense = flops(architecture, replace(counts, tokens=num_rows * width, pairs=num_rows * width**2))
    # The counter doesn't see the head, which is an op of our own, and the first matrix that is trained needs
    # no gradient of what goes into it.
    assert forward == pytest.approx(dense.forward, rel=0.01)
    assert both == pytest.approx(dense.total, rel=0.03)


def test_each_pair_of_tokens_and_patches_is_counted_once() -> None:
    # A prompt of 3 sees 1 + 2 + 3; a response of 2 sees 3 + 1, then 3 + 2; one of 1 sees 3 + 1.
    assert Counts.of_lengths(3, [2, 1]) == Counts(tokens=6, pairs=6 + 9 + 4, responses=2)
    # Each on its own: 3 + 2 tokens see 1 + 2 + 3 + 4 + 5, 3 + 1 tokens 1 + 2 + 3 + 4.
    assert Counts.of_lengths(3, [2, 1], shared=False) == Counts(tokens=9, pairs=25, responses=2)
    # Two frames of 6 x 4 patches in windows of 4 x 4: one of 16 patches and one of 8 in each.
    counts = Counts.of_lengths(3, [1], [(2, 6, 4)], window=4)
    assert (counts.patches, counts.patch_pairs, counts.window_pairs) == (48, 2 * 24**2, 2 * (16**2 + 8**2))


def test_the_backward_pass_goes_no_further_than_what_is_trained() -> None:
    parts = {"vision": Matrices(10, 0), "projector": Matrices(20, 0), "language": Matrices(100, 0)}

    def backward(**trained: int) -> float:
        given = {name: part._replace(trained=trained.get(name, 0)) for name, part in parts.items()}
        none = Layers(number=0, width=1, num_heads=1, query_width=1, key_width=1, inner_width=1)
        architecture = Architecture({**given, "head": Matrices(5, 5)}, none, none, patches_per_token=4)
        return flops(architecture, Counts(tokens=8, patches=16, responses=2)).backward

    head = 2 * (2 * 5 * 2)  # gradients of the weights and of the inputs
    assert backward() == head
    # LoRA's: gradients of few weights, but of all inputs.
    assert backward(language=3) == head + 2 * (100 + 3) * 8
    assert backward(projector=20) == head + 2 * 100 * 8 + 2 * (20 + 20) * 4
    assert backward(vision=10, language=100) == head + 2 * 200 * 8 + 2 * 20 * 4 + 2 * 20 * 16


def test_recomputed_layers_are_not_counted_as_work_of_the_model(build: Build) -> None:
    architecture = Architecture.of(build("llama"))
    assert architecture is not None
    counts = Counts.of_lengths(20, [10, 10])
    kept, again = (flops(architecture, counts, recomputes=recomputes) for recomputes in (False, True))
    assert again.model == kept.total
    # The head is in no block; and of each block the last product, 512 x 256, isn't needed again.
    head = 2 * architecture.parts["head"].weights * 2
    assert again.recomputed == kept.forward - head - 3 * 2 * 512 * 256 * 40


def test_what_a_model_of_another_make_costs_is_not_known() -> None:
    class Backbone:
        shares = True

    class Model:
        backbone = Backbone()
        paradigm = Paradigm()

    step = StepFlops(Model())
    assert step.architecture is None
    assert step([]) == 0.0


def test_of_a_cpu_no_peak_is_known() -> None:
    assert peak_flops(torch.device("cpu"), bf16=True) is None


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [("NVIDIA H100 80GB HBM3", 989.4e12, 67e12), ("NVIDIA H100 PCIe", None, None)],
)
def test_a_peak_is_that_of_the_very_device(
    name: str, bf16: float | None, fp32: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    device = torch.device("cuda")
    assert (peak_flops(device, bf16=True), peak_flops(device, bf16=False)) == (bf16, fp32)
    assert len({item.device_names for item in ACCELERATORS.values()}) == len(ACCELERATORS)
