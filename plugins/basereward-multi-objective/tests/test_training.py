"""A training learns attributes, and a gate that follows the prompt; what the README says to type works."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from basereward import Comparison, RewardModel, train
from basereward.cli import main
from basereward.config import Component, load_run

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

# Two ways to answer, each good in one way; what is asked decides which is better.
ANSWERS = ["ok", "thank you so"]
RATED = [{"brevity": 1.0, "warmth": -1.0}, {"brevity": -1.0, "warmth": 1.0}]
WANTED = {"hurry": "brevity", "comfort": "warmth"}
ROWS = [
    Comparison(
        f"{kind} {n}", ANSWERS, ranks=[0, 1] if kind == "hurry" else [1, 0], meta={"attributes": RATED}
    )
    for kind in WANTED
    for n in range(6)
]

RUN = """
output = "run"
backbone = { name = "tiny" }
head = { name = "gated", attributes = ["brevity", "warmth"], gate_width = 16 }
paradigm = { name = "multi-objective" }
train = { epochs = 150, batch_size = 12, lr = 3e-3, save_every = 1000, log_every = 100 }

[data]
train = [{ name = "basereward", path = "rows.jsonl" }]
"""


def blocks(language: str) -> list[str]:
    """Return the README's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def write(rows: Sequence[Comparison]) -> None:
    Path("rows.jsonl").write_text("\n".join(json.dumps(row.to_dict()) for row in rows))


def test_the_head_learns_attributes_and_the_gate_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(ROWS)
    Path("run.toml").write_text(RUN)
    model = RewardModel.load(train(load_run("run.toml"), progress=False).model_dir)
    for kind, attribute in WANTED.items():
        row = Comparison(f"{kind} 9", ANSWERS)
        explained = model.paradigm.explain(row)
        for found, rated in zip(explained, RATED, strict=True):
            assert found["ratings"] == pytest.approx(rated, abs=0.3)
            assert found["weights"][attribute] > 0.8
            assert sum(found["weights"].values()) == pytest.approx(1.0)
        [rewards] = model.score([row])
        assert rewards == pytest.approx([found["reward"] for found in explained], abs=1e-5)
        assert (rewards[0] > rewards[1]) is (kind == "hurry")
    model.save(tmp_path / "again")
    assert RewardModel.load(tmp_path / "again").score(ROWS) == model.score(ROWS)


def test_the_trainer_takes_rated_ties_with_the_loss_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write([*ROWS, Comparison("p", ["a", "b"], ranks=[0, 0], meta={"attributes": [{"warmth": 1.0}, None]})])
    shared = RUN.replace("epochs = 150", "epochs = 1")
    (loss,) = [line for line in blocks("toml")[0].splitlines() if line.startswith("loss")]
    for lines, num_rejected in ((shared, 1), (f"{loss}\n{shared}", 0)):
        Path("run.toml").write_text(lines)
        result = train(load_run("run.toml"), overwrite=True, progress=False)
        assert result.num_rejected == num_rejected


def test_the_commands_of_the_readme_work(capsys: pytest.CaptureFixture[str]) -> None:
    for line in blocks("bash")[0].splitlines():
        words = shlex.split(line, comments=True)
        if words[0] == "basereward":
            assert main(words[1:]) == 0
    printed = capsys.readouterr().out
    assert "\nmulti-objective 0.1.0: loaded\n" in printed
    assert "\nhead gated: A reward for each attribute, and a gate" in printed
    assert "\nparadigm multi-objective: Trains a `gated` head" in printed


def test_the_code_of_the_readme_works_on_models_of_its_run_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(ROWS)
    models = []
    for name, block in zip(("attributes", "uncertain"), blocks("toml"), strict=True):
        tables = tomllib.loads(block)
        parts = {kind: Component(table.pop("name"), table) for kind, table in tables.items()}
        models.append(RewardModel.build(backbone=Component("tiny", {}), **parts))
        models[-1].save(f"runs/{name}/model")
    names: dict[str, object] = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), names)
    first, second, distributions = capsys.readouterr().out.splitlines()
    assert "'verbosity'" in first
    assert "'verbosity'" in second
    assert re.fullmatch(r"\[\S+, \S+\] \[\S+, \S+\]", distributions)
    decorrelated = RewardModel.load("runs/attributes/decorrelated")
    assert decorrelated.score(ROWS) != models[0].score(ROWS)
