"""Plans: what follows from sizes, lengths and settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from basereward.config import RunConfig, load_run
from basereward.costs.accelerators import ACCELERATORS
from basereward.costs.communication import bandwidth, communication
from basereward.errors import ConfigError
from basereward.planning.lengths import Overrides
from basereward.planning.meta_model import meta_model
from basereward.planning.plan import Plan, checked_mfu, plan
from basereward.plugins import PluginManager
from basereward.training.resolve import resolve_run

RECIPE = Path(__file__).parents[2] / "recipes" / "basereward-7b.toml"
H100 = ACCELERATORS["h100"]


COPIES = ("train.parallel=ddp", "train.activation_checkpointing=false")
"""A whole copy of the model on each GPU, as the recipe has not."""

FITTING = ("train.parallel=fsdp", "train.activation_checkpointing=true")


def planned(*settings: str, num_gpus: int = 64, **known: int) -> Plan:
    """Return the plan of the paper's recipe."""
    return plan(
        load_run(RECIPE, settings),
        PluginManager(),
        H100,
        num_gpus=num_gpus,
        mfu=(0.2, 0.4),
        overrides=Overrides(**known),
    )


def test_the_papers_run_is_planned_from_its_recipe_alone() -> None:
    known: dict[str, Any] = {"prompt_tokens": 100, "response_tokens": 200, "image_tokens": 400}
    found = planned(*COPIES, **known)
    assert {name: (part.parameters, part.trained) for name, part in found.parts.items()} == {
        "vision": (631_975_680, 0),
        "projector": (44_574_464, 44_574_464),
        "language": (7_070_619_136, 7_070_619_136),
        "head": (12_852_225, 12_852_225),
    }
    assert found.rows.num_rows == 2_857_814
    assert found.num_steps == 22_327  # 2,857,814 / 128 = 22326.7
    assert found.num_comparisons == 2_857_814
    assert found.rows_in_pass == (1, 1)
    # 100 tokens of text, 400 of an image in four rows of five, 2 * 200; the decoder's 6.5e9 weights cost 2
    # FLOPs a token thrice, the frozen tower's 6.3e8 once for each of 1600 patches. Attention is the rest.
    assert found.rows.mean.tokens == pytest.approx(820, abs=0.5)
    products = 3 * 2 * 6.525e9 * 820 + 2 * 6.315e8 * 0.8 * 1600
    assert found.with_tree.total == pytest.approx(products, rel=0.02)
    # Twice the prompt, which is 100 + 0.8 * 400 of 820 tokens, and the tower.
    assert found.without_tree.total / found.with_tree.total == pytest.approx(1.5, abs=0.05)
    # fp32 weights, gradients and two moments of 7.1e9 parameters, and copies in bf16: no GPU holds that.
    assert found.on_average.total > 16 * 7.1e9
    assert not found.fits
    # Divided among the paper's 64, as the recipe has it, they fit 80 GB with the longest rows that it allows.
    assert planned(**known).fits
    assert planned().at_most.total < 0.9 * 80e9


BACKBONES = sorted((RECIPE.parent / "backbones").glob("*.toml"))
LARGEST = ("internvl3-78b", "qwen2.5-vl-72b")


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path.stem in LARGEST else pytest.mark.slow) for path in BACKBONES],
    ids=lambda path: path.stem,
)
def test_each_backbone_of_the_papers_study_fits_its_gpus(path: Path) -> None:
    known = Overrides()
    found = plan(load_run(path), PluginManager(), H100, num_gpus=64, mfu=(0.2, 0.4), overrides=known)
    assert found.sizes_from == "as published"
    assert found.fits


def test_time_follows_from_flops_and_the_peak() -> None:
    lora = "train.lora.rank=16"  # which fits
    found = planned(lora, FITTING[1], num_gpus=1)
    flops = found.num_comparisons * found.with_tree.total
    assert found.communication_bytes == 0
    assert found.seconds == pytest.approx((flops / (0.4 * 989.4e12), flops / (0.2 * 989.4e12)))
    slow = planned(lora, FITTING[1], "train.precision=fp32", num_gpus=1)
    assert slow.seconds[0] == pytest.approx(flops / (0.4 * 67e12))
    # Half an epoch, and no more than some steps.
    assert planned(*FITTING, "train.epochs=0.5").num_steps == 11_164
    few, all_of_it = planned(*FITTING, "train.max_steps=10"), planned(*FITTING)
    assert (few.num_steps, few.num_comparisons) == (10, 1280)
    assert few.seconds[0] == pytest.approx(10 / 22_327 * all_of_it.seconds[0], rel=1e-3)
    # Sending and computing at once at best, one after the other at worst.
    assert all_of_it.seconds[0] >= 22_327 * all_of_it.communication_seconds
    assert all_of_it.seconds[1] > 22_327 * all_of_it.communication_seconds + all_of_it.seconds[0] / 2


def test_more_gpus_than_a_batch_has_rows_stay_idle() -> None:
    found, all_busy = (planned(*FITTING, "train.batch_size=32", num_gpus=number) for number in (64, 32))
    assert (found.busy_gpus, all_busy.busy_gpus) == (32, 32)
    assert found.seconds[0] == pytest.approx(all_busy.seconds[0], rel=0.05)


def test_what_would_make_it_fit_does_make_it_fit() -> None:
    found = planned(*COPIES)
    assert [change.settings for change in found.changes] == [
        ("train.parallel=fsdp", "train.activation_checkpointing=true"),
        ("train.parallel=fsdp", "train.lora.rank=16"),
    ]
    for change in found.changes:
        changed = planned(*COPIES, *change.settings)
        assert changed.fits
        assert changed.at_most.total == change.bytes_on_gpu
        assert changed.changes == ()
    # One GPU can't divide the model, and 24 GB hold no 7B model that is trained.
    assert [change.settings for change in planned(*COPIES, num_gpus=1).changes] == [
        ("train.activation_checkpointing=true", "train.lora.rank=16")
    ]
    small = plan(
        load_run(RECIPE),
        PluginManager(),
        ACCELERATORS["rtx4090"],
        num_gpus=1,
        mfu=(0.2, 0.4),
        overrides=Overrides(),
    )
    assert small.changes == ()


def test_a_pass_holds_what_the_budgets_allow() -> None:
    known: dict[str, Any] = {"prompt_tokens": 100, "response_tokens": 200, "image_tokens": 0, "num_gpus": 8}
    size = "train.micro_batch_size=none"

    def rows_in_pass(*settings: str, **more: int) -> tuple[int, int]:
        return planned(*FITTING, size, *settings, **{**known, **more}).rows_in_pass

    assert rows_in_pass() == (16, 16)
    # Rows of 500 tokens; the longest that fits max_tokens has 8192 + 200.
    assert rows_in_pass("train.micro_batch_tokens=2100") == (4, 1)
    assert rows_in_pass("train.micro_batch_tokens=20000") == (16, 2)
    # 0.8 * 1600 patches a row; the longest row is taken to be text.
    assert rows_in_pass("train.micro_batch_patches=4000", image_tokens=400) == (3, 16)


def test_recomputation_takes_time_and_saves_memory() -> None:
    settings = ("train.parallel=fsdp", "train.activation_checkpointing=false")
    kept, again = planned(*settings), planned(*settings, "train.activation_checkpointing=true")
    assert again.with_tree.model == kept.with_tree.model
    assert again.with_tree.total > kept.with_tree.total
    assert again.at_most.activations < kept.at_most.activations / 5
    assert again.at_most.weights == kept.at_most.weights


@pytest.mark.parametrize(
    ("gpu", "num_gpus", "gigabytes"),
    [("h100", 8, 450), ("h100", 16, 400), ("a100-80", 16, 300), ("l40s", 2, 32)],
)
def test_the_narrowest_link_counts(gpu: str, num_gpus: int, gigabytes: float) -> None:
    assert bandwidth(ACCELERATORS[gpu], num_gpus) == gigabytes * 1e9


def test_each_way_of_training_together_sends_what_it_must() -> None:
    run: RunConfig = resolve_run(load_run(RECIPE), PluginManager())
    model, _ = meta_model(run, PluginManager())
    for parameter in model.part_parameters()["vision"]:
        parameter.requires_grad_(False)
    parts = {
        name: sum(map(lambda item: item.numel(), items)) for name, items in model.part_parameters().items()
    }
    trained = sum(parts.values()) - parts["vision"]

    def sent(parallel: str, num_ranks: int, num_passes: int, *, bf16: bool = True, **settings: int) -> float:
        config = replace(run.train, parallel=parallel, **settings)
        return communication(model, config, num_ranks=num_ranks, num_passes=num_passes, bf16=bf16)

    assert sent("ddp", 1, 1) == 0
    # Parts of the sum go round, then the sum: twice 7 of 8 parts in fp32, once a step.
    assert sent("ddp", 8, 1) == sent("ddp", 8, 5) == 2 * 4 * trained * 7 / 8
    tower = sum(item.numel() for block in model.backbone.model.visual.blocks for item in block.parameters())
    layers = sum(
        item.numel() for block in model.backbone.model.language_model.layers for item in block.parameters()
    )
    rest = sum(parts.values()) - tower - layers
    # Layers in bf16 before each of the two passes, the frozen tower before one; what is in no block in fp32.
    gathered = 2 * (2 * layers + tower) + 4 * rest
    assert sent("fsdp", 8, 1) == (gathered + 4 * trained) * 7 / 8
    assert sent("fsdp", 8, 3) == 3 * sent("fsdp", 8, 1)
    # Groups of 8: what is summed in a group is summed over the 4 groups then.
    assert sent("fsdp", 32, 1, shard_ranks=8) == sent("fsdp", 8, 1) + 2 * 4 * trained / 8 * 3 / 4


def test_utilisation_is_a_range_of_shares() -> None:
    assert checked_mfu(0.2, 0.2) == (0.2, 0.2)
    for low, high in ((0.0, 0.5), (0.5, 0.4), (0.5, 1.1)):
        with pytest.raises(ConfigError) as raised:
            checked_mfu(low, high)
        assert str(raised.value) == (
            f"--mfu is {low:g} {high:g}; allowed: two shares above 0 and up to 1, the lower first"
        )
