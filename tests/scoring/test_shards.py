"""Files scored by many workers, killed or not: one row out for each row in, and the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from rounding import TINY_REWARD

from basereward import ConfigError, RewardModel
from basereward.cli import main
from basereward.cli.score_shards import worker_of
from basereward.config import Component
from basereward.data.formats import DetectedDataset
from basereward.scoring.baselines import baseline_of
from basereward.scoring.files import InputRows, ScoredRow
from basereward.scoring.reward_table import write_table
from basereward.scoring.shards import (
    Outcome,
    Shard,
    _remove_summary,
    digest_of_model,
    own_shards,
    score_shards,
    shards_of,
)


def row(number: int, **values: Any) -> dict[str, Any]:
    return {
        "id": f"n{number}",
        "prompt": "the cat",
        "responses": ["a" * (number % 5 + 1), "a dog runs"],
        **values,
    }


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Return a directory of three files: Parquet, JSONL with bad rows, and Parquet further down."""
    root = tmp_path / "in"
    (root / "more").mkdir(parents=True)
    for name, numbers in (("a.parquet", range(5)), ("more/c.parquet", range(20, 27))):
        table = pyarrow.Table.from_pylist([row(number) for number in numbers])
        pyarrow.parquet.write_table(table, root / name)
    bad = [row(10), row(11, responses=["a", " "]), row(12, images=["gone.png"]), row(13)]
    lines = [*map(json.dumps, bad), "{not json"]
    (root / "b.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return root


@pytest.fixture(scope="module")
def model_dir(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "model"
    RewardModel.build(backbone=Component("causal-lm", {"model": str(tiny_models["llama"])})).save(directory)
    return directory


def score(shards: list[Shard], output: Path, judge: str = "longest", **options: Any) -> Outcome:
    return score_shards(baseline_of(judge), shards, output, model_digest=judge, progress=False, **options)


def contents(output: Path) -> dict[str, bytes]:
    """Return all files but those that a killed worker was writing."""
    files = [path for path in sorted(output.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in files}


def test_there_is_a_row_for_each_row(inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    outcome = score(shards_of([inputs], output), output)
    assert (len(outcome.scored), outcome.failed, outcome.is_complete) == (3, [], True)
    names = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.parquet"))
    assert names == ["a.rewards.parquet", "b.rewards.parquet", "more/c.rewards.parquet"]
    table = pyarrow.parquet.read_table(output / "a.rewards.parquet").to_pylist()
    # `longest` rewards characters: 1 to 5 of the first response, 10 of the second.
    assert table == [
        {"row": number + 1, "id": f"n{number}", "rewards": [number + 1.0, 10.0], "error": None}
        for number in range(5)
    ]
    rows = pyarrow.parquet.read_table(output / "b.rewards.parquet").to_pylist()
    assert [found["row"] for found in rows] == [1, 2, 3, 4, 5]
    assert [found["rewards"] is None for found in rows] == [False, True, True, False, True]
    assert rows[1]["error"] == "responses[1]: is empty"
    summary = json.loads((output / "summary.json").read_text())
    # 5 + 5 + 7 rows of which 3 are bad, so 14 with two rewards each.
    assert (summary["num_rows"], summary["num_errors"], summary["num_rewards"]) == (17, 3, 28)
    assert (summary["reward_min"], summary["reward_max"]) == (1.0, 10.0)


def test_rewards_are_those_of_the_model(model_dir: Path, inputs: Path, tmp_path: Path) -> None:
    model = RewardModel.load(model_dir)
    shards = shards_of([inputs / "a.parquet"], tmp_path / "out")
    score_shards(
        model, shards, tmp_path / "out", model_digest=digest_of_model(model_dir), batch_size=2, progress=False
    )
    found = pyarrow.parquet.read_table(shards[0].target)["rewards"].to_pylist()
    expected = model.score([tiny_comparison(number) for number in range(5)])
    for rewards, wanted in zip(found, expected, strict=True):
        assert rewards == pytest.approx(wanted, abs=TINY_REWARD)


def tiny_comparison(number: int) -> Any:
    from basereward import Comparison

    content = row(number)
    return Comparison(content["prompt"], content["responses"])


def test_workers_share_the_files_and_make_the_same(inputs: Path, tmp_path: Path) -> None:
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    score(shards_of([inputs], whole), whole)
    shards = shards_of([inputs], shared)
    parts = [own_shards(shards, worker, 2) for worker in (0, 1)]
    assert sorted(shard.target for part in parts for shard in part) == [shard.target for shard in shards]
    assert all(parts)
    done = [score(shards, shared, worker=worker, num_workers=2) for worker in (1, 0)]
    assert [outcome.is_complete for outcome in done] == [False, True]
    assert contents(shared) == contents(whole)


def test_what_is_there_is_not_made_again(inputs: Path, tmp_path: Path) -> None:
    shards = shards_of([inputs], tmp_path / "out")
    score(shards, tmp_path / "out")
    times = [shard.target.stat().st_mtime_ns for shard in shards]
    outcome = score(shards, tmp_path / "out")
    assert (len(outcome.scored), len(outcome.skipped)) == (0, 3)
    assert [shard.target.stat().st_mtime_ns for shard in shards] == times


def test_tables_of_another_model_or_of_other_rows_are_not_taken(inputs: Path, tmp_path: Path) -> None:
    shards = shards_of([inputs], tmp_path / "out")
    score(shards, tmp_path / "out")
    with pytest.raises(ConfigError) as caught:
        score(shards, tmp_path / "out", "shortest")
    assert str(caught.value) == f"{shards[0].target} is of another model; --overwrite replaces it"
    path = inputs / "b.jsonl"
    path.write_text(path.read_text().replace("n10", "n99"))  # the same size
    with pytest.raises(ConfigError) as caught:
        score(shards, tmp_path / "out")
    assert (
        str(caught.value)
        == f"{shards[1].target} was made of {path} as it was before; --overwrite replaces it"
    )
    outcome = score(shards, tmp_path / "out", overwrite=True)
    assert [shard.source for shard in outcome.scored] == [path]


def test_a_file_that_breaks_off_is_told_and_the_others_go_on(inputs: Path, tmp_path: Path) -> None:
    path = inputs / "a.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    shards = shards_of([inputs], tmp_path / "out")
    outcome = score(shards, tmp_path / "out")
    [(shard, error)] = outcome.failed
    assert shard.source == path
    assert "the Parquet file is damaged after row 0" in str(error)
    assert (len(outcome.scored), outcome.is_complete) == (2, False)
    assert not shard.target.exists()
    assert not list(shard.target.parent.glob(".*"))


def test_inputs_that_cannot_be_told_apart_are_refused(inputs: Path, tmp_path: Path) -> None:
    (inputs / "a.jsonl").write_text("")
    with pytest.raises(ConfigError) as caught:
        shards_of([inputs], tmp_path / "out")
    both, place = f"{inputs / 'a.parquet'} and {inputs / 'a.jsonl'}", tmp_path / "out" / "a.rewards.parquet"
    assert str(caught.value) == f"{both} would both be scored to {place}"
    with pytest.raises(ConfigError, match=r"gone: there is no such file or directory$"):
        shards_of([tmp_path / "gone"], tmp_path / "out")


@pytest.mark.external
def test_a_run_that_is_killed_and_repeated_leaves_the_same_bytes(
    model_dir: Path, inputs: Path, tmp_path: Path
) -> None:
    arguments = ["score-shards", str(model_dir), str(inputs), "--quiet"]
    command = [sys.executable, "-m", "basereward", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main([*arguments, "--output", str(whole)]) == 0
    with subprocess.Popen([*command, "--output", str(killed)], env=environment) as process:
        while process.poll() is None and not list(killed.rglob("*.parquet")):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    subprocess.run([*command, "--output", str(killed)], env=environment, check=True, timeout=100)
    assert contents(killed) == contents(whole)


@pytest.mark.external
def test_torchrun_and_a_job_array_share_the_work(
    model_dir: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["score-shards", str(model_dir), str(inputs), "--quiet", "--output"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for number in range(2):
        task = {"ID": str(number + 5), "COUNT": "2", "MIN": "5"}
        for name, value in task.items():
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
        assert main([*arguments, str(tmp_path / "array")]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*torchrun, "-m", "basereward", *arguments, str(tmp_path / "torchrun")],
        env=environment,
        check=True,
        timeout=100,
    )
    assert contents(tmp_path / "torchrun") == contents(tmp_path / "array")
    assert "summary.json" in contents(tmp_path / "array")


def test_a_full_disk_leaves_nothing_half_written(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("basereward.storage.atomic.fsync", full)
    shards = shards_of([inputs / "a.parquet"], tmp_path / "out")
    with pytest.raises(OSError, match="No space left"):
        score(shards, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_files_of_one_name_are_told_apart(inputs: Path, tmp_path: Path) -> None:
    (inputs / "more" / "a.jsonl").write_text(json.dumps(row(1)) + "\n")
    output = tmp_path / "out"
    score(shards_of([inputs], output), output)
    tables = json.loads((output / "summary.json").read_text())["tables"]
    assert {name: table["num_rows"] for name, table in tables.items()} == {
        "a.rewards.parquet": 5,
        "b.rewards.parquet": 5,
        "more/a.rewards.parquet": 1,
        "more/c.rewards.parquet": 7,
    }


def test_two_workers_may_make_one_table(inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    [shard] = shards_of([inputs / "a.parquet"], output)
    rows = list(InputRows(DetectedDataset(shard.source)).scored(baseline_of("longest"), batch_size=8))

    def meanwhile() -> Iterator[ScoredRow]:
        yield from rows[:2]
        write_table(rows, shard.target, {})  # another worker, faster than this one
        yield from rows[2:]

    write_table(meanwhile(), shard.target, {})
    assert pyarrow.parquet.read_table(shard.target).num_rows == len(rows)
    assert [path.name for path in output.iterdir()] == [shard.target.name]


def test_a_summary_is_not_of_files_that_have_changed(inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shards = shards_of([inputs], output)
    score(shards, output)
    for shard in shards:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row(1), row(2)]), shard.source)
    done = [score(shards, output, worker=worker, num_workers=2, overwrite=True) for worker in (0, 1)]
    assert [outcome.is_complete for outcome in done] == [False, True]
    assert json.loads((output / "summary.json").read_text())["num_rows"] == 6


def test_reasons_that_name_files_do_not_fill_the_memory(tmp_path: Path) -> None:
    lines = [json.dumps(row(number, images=[f"gone-{number}.png"])) for number in range(200)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    output = tmp_path / "out"
    shards = shards_of([tmp_path / "rows.jsonl"], output)
    score(shards, output)
    summary = json.loads((output / "summary.json").read_text())
    assert summary["num_errors"] == 200
    assert (len(summary["errors"]), summary["errors"]["other reasons"]) == (51, 150)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "8"}, (3, 8)),
        ({"ID": "7", "MIN": "5", "COUNT": "4"}, (2, 4)),
        ({"ID": "6", "MIN": "0", "STEP": "2", "COUNT": "4"}, (3, 4)),
        # The second process of the sixth task: 5 * 8 + 1 of 16 * 8.
        ({"ID": "5", "COUNT": "16", "RANK": "1", "WORLD_SIZE": "8"}, (41, 128)),
    ],
)
def test_the_environment_says_which_worker_it_is(
    environment: dict[str, str], expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name if name.isupper() and name[0] in "RW" else f"SLURM_ARRAY_TASK_{name}", value)
    assert worker_of(Namespace(worker=None, workers=None)) == expected
    assert worker_of(Namespace(worker=1, workers=3)) == (1, 3)


def test_a_summary_that_is_somebody_else_s_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text('{"notes": 1}')
    with pytest.raises(ConfigError, match=f"^{path} is no summary of scored shards"):
        _remove_summary(path)
    assert path.read_text() == '{"notes": 1}'
