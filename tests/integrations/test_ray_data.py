"""Scoring as a stage of Ray Data, with the real Ray where it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from rounding import TINY_REWARD

from basereward import Comparison, ConfigError, RewardModel
from basereward.config import Component
from basereward.integrations.ray_data import RewardStage

ROWS: list[dict[str, Any]] = [
    {"id": f"n{number}", "prompt": "the cat", "responses": ["sits" + " on" * number, "a dog"]}
    for number in range(9)
] + [{"id": "bad", "prompt": "the cat", "responses": [" "]}]

PIPELINE = """
import json, sys
import ray
from basereward.integrations.ray_data import RewardStage

model, source = sys.argv[1:]
ray.init(num_cpus=4, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
rows = ray.data.read_parquet(source).map_batches(
    RewardStage, fn_constructor_args=(model,), batch_format="pyarrow", batch_size=4, concurrency=1
)
print(json.dumps(sorted(rows.take_all(), key=lambda row: row["id"]), default=lambda value: value.tolist()))
"""


@pytest.fixture(scope="module")
def model_dir(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "model"
    RewardModel.build(backbone=Component("causal-lm", {"model": str(tiny_models["llama"])})).save(directory)
    return directory


def check(found: list[dict[str, Any]], model_dir: Path) -> None:
    """Compare rows of a stage with what the model says of them."""
    comparisons = [Comparison(row["prompt"], row["responses"]) for row in ROWS[:-1]]
    expected = RewardModel.load(model_dir).score(comparisons)
    by_id = {row["id"]: row for row in found}
    assert len(by_id) == len(ROWS)
    for number, rewards in enumerate(expected):
        assert by_id[f"n{number}"]["rewards"] == pytest.approx(rewards, abs=TINY_REWARD)
        assert by_id[f"n{number}"]["error"] is None
    assert by_id["bad"]["rewards"] is None
    assert by_id["bad"]["error"] == "responses[0]: is empty"


def test_a_stage_adds_rewards_and_errors_to_rows(model_dir: Path) -> None:
    table = RewardStage(str(model_dir), batch_size=3)(pyarrow.Table.from_pylist(ROWS))
    assert table.column_names == ["id", "prompt", "responses", "rewards", "error"]
    check(table.to_pylist(), model_dir)


def test_a_stage_reads_other_formats_and_images_of_its_directories_only(
    model_dir: Path, tmp_path: Path
) -> None:
    rows = [
        {"asked": "the cat", "better": "sits", "worse": "a dog", "images": []},
        {"asked": "the cat", "better": "sits", "worse": "a dog", "images": ["/etc/passwd"]},
    ]
    keys = {"prompt_key": "asked", "chosen_key": "better", "rejected_key": "worse"}
    stage = RewardStage(str(model_dir), root=str(tmp_path), dataset="openrlhf", options=keys)
    found = stage(pyarrow.Table.from_pylist(rows)).to_pylist()
    [expected] = RewardModel.load(model_dir).score([Comparison("the cat", ["sits", "a dog"])])
    assert found[0]["rewards"] == pytest.approx(expected, abs=TINY_REWARD)
    message = f"images[0]: /etc/passwd is not in {tmp_path}; allow its directory by the option media_roots"
    assert [row["error"] for row in found] == [None, message]
    with pytest.raises(ConfigError, match="dataset 'helpsteer' joins rows, which have to be read"):
        RewardStage(str(model_dir), dataset="helpsteer")


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'basereward[ray]'")
def test_ray_runs_the_stage(model_dir: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PIPELINE, str(model_dir), str(tmp_path / "rows.parquet")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout.splitlines()[-1]), model_dir)
