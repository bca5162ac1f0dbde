"""TRL's whole script of reward training, `trl reward`, as it is installed, with two imports changed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from basereward import RewardModel

pytestmark = pytest.mark.external

CHANGED = {"RewardTrainer": "get_dataset", "RewardConfig": "ScriptArguments"}
"""Names that are imported from here instead of TRL, each with a name that TRL's line imports beside it."""

OPTIONS = {
    "all weights": [],
    "LoRA": ["--use_peft", "--lora_task_type", "SEQ_CLS", "--lora_r", "4", "--lora_alpha", "16"],
    "no held-out data": ["--eval_strategy", "no"],
}
"""Those of the examples in TRL's documentation."""


def changed(script: str) -> str:
    """Return TRL's script with the names of `CHANGED` imported from basereward."""
    lines = []
    for line in script.splitlines():
        lines.append(line)
        for name, beside in CHANGED.items():
            if line.lstrip().startswith("from trl import ") and f"{name}, " in line and beside in line:
                indent = line[: len(line) - len(line.lstrip())]
                lines[-1:] = [line.replace(f"{name}, ", ""), f"{indent}from basereward import {name}"]
    text = "\n".join(lines)
    assert text.count("from basereward import ") == len(CHANGED)
    return text


@pytest.fixture
def script(tmp_path: Path) -> Path:
    pytest.importorskip("trl", reason="the extra rl is not installed")
    spec = importlib.util.find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / "scripts" / "reward.py").read_text(encoding="utf-8")
    path = tmp_path / "reward.py"
    path.write_text(changed(text), encoding="utf-8")
    return path


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_script_runs_whole(
    options: list[str], script: Path, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "preferences").mkdir()
    for split, num in (("train", 8), ("test", 4)):
        rows = [
            {"prompt": f"question {number}", "chosen": "yes yes", "rejected": "no"} for number in range(num)
        ]
        (tmp_path / "preferences" / f"{split}.jsonl").write_text(
            "".join(f"{json.dumps(row)}\n" for row in rows)
        )
    command = [sys.executable, str(script), "--model_name_or_path", str(tiny_models["qwen2"])]
    command += ["--dataset_name", "preferences", "--output_dir", "out", "--num_train_epochs", "1"]
    command += [
        "--per_device_train_batch_size",
        "4",
        "--gradient_checkpointing",
        "True",
        "--logging_steps",
        "1",
    ]
    command += [
        "--learning_rate",
        "1e-3",
        "--max_length",
        "512",
        "--eval_strategy",
        "steps",
        "--eval_steps",
        "1",
    ]
    command += ["--bf16", "False", "--report_to", "none", *options]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Training completed." in done.stdout
    assert "Model saved to out." in done.stdout
    assert "step 2/2: loss " in done.stderr
    assert ("step 2/2: held-out accuracy " in done.stderr) == ("no" not in options)
    assert (tmp_path / "out" / "adapter").is_dir() == ("--use_peft" in options)
    row = {"prompt": "question 1", "responses": ["yes yes", "no"]}
    assert len(RewardModel.load(tmp_path / "out" / "model").score(row)) == 2
