"""`basereward critique` writes critiques once; they are scored as they stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

from basereward.cli import main
from basereward.config import Component
from basereward.scoring.reward_model import RewardModel


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with a model of the paradigms critic and scalar each."""
    root = tmp_path_factory.mktemp("models")
    base = tiny.add_language_head(tiny.save_causal_lm(root / "base"))
    for name, options in (("critic", {"max_critique_tokens": 6}), ("scalar", {})):
        torch.manual_seed(0)
        RewardModel.build(
            backbone=Component("causal-lm", {"model": str(base)}), paradigm=Component(name, options)
        ).save(root / name)
    return root


def rows(directory: Path) -> Path:
    path = directory / "rows.jsonl"
    lines = [
        {"id": "one", "prompt": "what is it", "responses": ["a cat", "the dog"], "ranks": [0, 1]},
        {"id": "two", "prompt": "what is it", "responses": ["a hat"], "meta": {"critiques": ["quite right"]}},
        {"id": "bad", "prompt": "what is it", "responses": ["a hat"], "meta": {"critiques": "right"}},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_critiques_are_written_once_and_can_be_edited(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = rows(tmp_path), tmp_path / "criticised.jsonl"
    assert main(["critique", str(models / "critic"), str(data), "--output", str(output)]) == 0
    told = capsys.readouterr().err
    assert "critiques written 2, critiques cut 2, critiques empty 0" in told
    assert "1 row left out, the first: " in told
    assert "a list of 1 critiques is needed, a text or null for each response, not 'right'" in told
    one, two = map(json.loads, output.read_text().splitlines())
    assert [len(row["meta"]["critiques"]) for row in (one, two)] == [2, 1]
    assert two["meta"]["critiques"] == ["quite right"]
    assert (one["ranks"], one["id"]) == ([0, 1], "one")

    model = RewardModel.load(models / "critic")
    before = scores(model, output)
    assert model.statistics == {}  # nothing had to be written
    one["meta"]["critiques"][0] = "it is wrong"
    output.write_text(json.dumps(one) + "\n" + json.dumps(two) + "\n")
    after = scores(model, output)
    assert after[0][0] != before[0][0]
    assert (after[0][1], after[1]) == (before[0][1], before[1])


def scores(model: RewardModel, path: Path) -> list[list[float]]:
    from basereward.data.native import NativeDataset

    return model.score(NativeDataset(path))


def test_a_model_of_another_paradigm_writes_none(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "critique",
        str(models / "scalar"),
        str(rows(tmp_path)),
        "--output",
        str(tmp_path / "x.jsonl"),
    ]
    assert main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"basereward: error: {models / 'scalar'} writes no critiques; a model of the paradigm critic does, "
        "and a judge with a template of critiques, of reasoned verdicts, of explained ratings or of criteria"
    )
    assert not (tmp_path / "x.jsonl").exists()
