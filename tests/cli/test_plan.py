"""`basereward plan`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from basereward.cli import main
from basereward.cli.plan import GPUS
from basereward.costs.accelerators import ACCELERATORS

RECIPE = str(Path(__file__).parents[2] / "recipes" / "basereward-7b.toml")
Captured = pytest.CaptureFixture[str]


def printed(capsys: Captured, *arguments: str) -> str:
    assert main(["plan", RECIPE, *arguments]) == 0
    return capsys.readouterr().out


def test_the_papers_recipe_fits_its_gpus_and_whole_copies_are_told_what_would(capsys: Captured) -> None:
    assert "\nIt fits: at most " in printed(capsys, "--gpus", "64")
    copies = ("--set", "train.parallel=ddp", "--set", "train.activation_checkpointing=false")
    text = printed(capsys, "--gpus", "64", "--price", "2.5", *copies)
    assert text.startswith(
        "runs/basereward-7b on 64 x H100 SXM (80 GB, 989.4 TFLOP/s in dense bf16)\n\n"
        "model Qwen/Qwen2.5-VL-7B-Instruct; sizes: as published\n"
        "  part              parameters         trained\n"
        "  vision           631,975,680              no\n"
    )
    for line in (
        "data: 2,857,814 rows an epoch with 1 pair each",
        "  so assumed: prompts of 100 tokens, responses of 200, images of 640 x 480",
        "  responses of a row, as published: 2",
        "  responses of mm-rlhf: not known, 2 assumed; say how many by --num-responses",
        "  optimizer                           57.0              57.0",
        "  usable: 72.0 of 80",
        "It would take at most, with:",
    ):
        assert line in text.splitlines()
    assert " GB  --set train.parallel=fsdp --set train.activation_checkpointing=true\n" in text
    assert " at 2.5 for a GPU hour\n" in text


def test_json_has_all_in_bytes_flops_and_seconds(capsys: Captured) -> None:
    settings = ["--set", "train.parallel=fsdp", "--set", "train.activation_checkpointing=true"]
    found = json.loads(printed(capsys, "--json", "--gpus", "64", "--gpu", "h200", "--price", "3", *settings))
    assert (found["gpu"], found["gpus"], found["fits"], found["changes"]) == ("h200", 64, True, [])
    assert found["parts"]["vision"] == {"parameters": 631_975_680, "trained": 0}
    memory = found["at_most"]
    assert memory["total"] == sum(value for name, value in memory.items() if name != "total")
    assert found["with_tree"]["total"] < found["without_tree"]["total"]
    assert found["gpu_hours"] == [64 * seconds / 3600 for seconds in found["seconds"]]
    assert found["cost"] == [3 * hours for hours in found["gpu_hours"]]


def test_each_stage_has_a_plan(capsys: Captured) -> None:
    stages = ("stages.0.name=first", "stages.0.train.max_steps=10", "stages.1.name=second")
    settings = [word for stage in stages for word in ("--set", stage)]
    found = json.loads(printed(capsys, "--json", "--set", "train.lora.rank=8", *settings))
    assert [(plan["run"], plan["num_steps"]) for plan in found] == [
        ("runs/basereward-7b/first", 10),
        ("runs/basereward-7b/second", 22_327),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "0"], "--gpus is 0; allowed: 1 or more"),
        (
            ["--mfu", "0.5", "0.4"],
            "--mfu is 0.5 0.4; allowed: two shares above 0 and up to 1, the lower first",
        ),
        (
            ["--config", "nowhere.json"],
            "--config nowhere.json: there is no such file; give a model's config.json",
        ),
    ],
)
def test_a_wrong_option_is_named(capsys: Captured, arguments: list[str], message: str) -> None:
    assert main(["plan", RECIPE, *arguments]) == 2
    assert capsys.readouterr().err == f"basereward: error: {message}\n"


def test_the_gpus_of_the_command_are_those_that_are_known() -> None:
    assert tuple(ACCELERATORS) == GPUS
