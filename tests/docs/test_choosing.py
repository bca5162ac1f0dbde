"""The table of docs/choosing.md is what `basereward plan` says today."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from basereward import cli

TEXT = (Path(__file__).parents[2] / "docs" / "choosing.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| (\d+B) \| (.+) \| (\d+) x (\w+) \| ([\d.]+) of ([\d.]+) \| (.+) \|$", TEXT, flags=re.MULTILINE
)
LORA = ["train.lora.rank=16", "backbone.dtype=bfloat16"]
SETTINGS = {
    "all weights": [],
    "LoRA": LORA,
    "QLoRA": [*LORA, "backbone.quantize=4bit"],
    "FSDP": ["train.parallel=fsdp"],
}


def test_the_table_has_each_way_of_training() -> None:
    assert {row[1] for row in ROWS} == set(SETTINGS)


@pytest.mark.external
@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_a_row_is_what_plan_says(
    row: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    size, training, num, gpu, memory, usable, hours = row
    monkeypatch.chdir(tmp_path)
    (toml,) = re.findall(r"^```toml\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
    Path("run.toml").write_text(toml)
    (command,) = re.findall(r"^basereward (plan .*) \.\.\.$", TEXT, flags=re.MULTILINE)
    settings = [f"backbone.model=Qwen/Qwen2.5-VL-{size}-Instruct", *SETTINGS[training]]
    chosen = [argument for setting in settings for argument in ("--set", setting)]
    assert cli.main([*shlex.split(command), "--gpu", gpu, "--gpus", num, *chosen]) == 0
    said = capsys.readouterr().out
    assert re.search(rf"^  together +{memory} ", said, flags=re.MULTILINE)
    assert f"usable: {usable} of" in said
    assert f"{hours} hours at 45% to 25% of the peak" in said
