"""A training learns from ties what plain Bradley-Terry can't, and what the README says to type works."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from basereward import Comparison, RewardModel, train
from basereward.cli import main
from basereward.config import load_run

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

WINS = [Comparison(f"say {n}", [f"{n} yes", f"{n} no"], ranks=[0, 1]) for n in range(8)]
# "now" is as good as "yes", though it looks like "no", which is all that plain Bradley-Terry has to go by.
TIES = [Comparison(f"say {n}", [f"{n} yes", f"{n} now"], ranks=[0, 0]) for n in range(8)]

RUN = """
output = "runs/ties"
backbone = { name = "tiny" }
train = { epochs = 100, batch_size = 16, lr = 3e-3, save_every = 1000, log_every = 100 }

[data]
train = [{ name = "basereward", path = "rows.jsonl" }]
"""


def blocks(language: str) -> list[str]:
    """Return the README's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def trained(loss: str) -> RewardModel:
    """Return what a run of the wins and ties makes, with a line that names its loss."""
    lines = [json.dumps(row.to_dict()) for row in [*WINS, *TIES]]
    Path("rows.jsonl").write_text("\n".join(lines))
    Path("run.toml").write_text(loss + RUN)
    result = train(load_run("run.toml"), overwrite=True, progress=False)
    return RewardModel.load(result.model_dir)


def gaps(model: RewardModel) -> tuple[float, float]:
    """Return how far apart rewards are, on average: of wins, in their order; of ties, either way round."""
    wins = [first - second for first, second in model.score(WINS)]
    ties = [abs(first - second) for first, second in model.score(TIES)]
    return sum(wins) / len(wins), sum(ties) / len(ties)


def test_training_pulls_ties_together_which_bradley_terry_leaves_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, left_apart = gaps(trained('loss = { name = "bradley-terry" }'))
    for loss, start, learns in zip(blocks("toml"), (1.0, 0.5), (True, False), strict=True):
        model = trained(loss)
        win, tie = gaps(model)
        assert win > 20 * tie
        assert left_apart > 20 * tie
        # What the loss has learnt is in the model directory.
        (parameter,) = model.paradigm.criterion.parameters()
        moved = abs(parameter.exp().item() - start)
        assert (moved > 0.05) is learns
        assert learns or moved < 1e-6


def test_the_commands_of_the_readme_work(capsys: pytest.CaptureFixture[str]) -> None:
    for line in blocks("bash")[0].splitlines():
        words = shlex.split(line, comments=True)
        if words[0] == "basereward":
            assert main(words[1:]) == 0
    printed = capsys.readouterr().out
    assert "\nties 0.1.0: loaded\n" in printed
    assert "\nloss davidson: Ties in proportion to the geometric mean of both strengths" in printed


def test_the_code_of_the_readme_fits_to_rows_that_were_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = trained(blocks("toml")[0])
    held_out = [*WINS, *TIES]
    Path("held-out.jsonl").write_text("\n".join(json.dumps(row.to_dict()) for row in held_out))
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("Outcomes(win=tensor([")
    fitted = RewardModel.load("runs/ties/fitted")
    assert fitted.score(WINS) == model.score(WINS)
    # A hundred steps have parted wins from ties further than nu, from its start, had time to follow.
    assert fitted.paradigm.loss(held_out).loss < 0.5 * model.paradigm.loss(held_out).loss
