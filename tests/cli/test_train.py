"""`basereward train`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from basereward.cli import main


@pytest.fixture
def run_file(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """Return a run file of two steps, with one bad row."""
    rows = [{"prompt": f"{n}", "responses": ["cat dog", "red blue"], "ranks": [0, 1]} for n in range(8)]
    rows.append({"prompt": "tied", "responses": ["a", "b"], "ranks": [0, 0]})
    for name in ("train", "eval"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "run.toml"
    path.write_text(
        f"""
        output = "{tmp_path}/run"
        backbone = {{ name = "causal-lm", model = "{tiny_models["llama"]}" }}
        data.train = [{{ name = "basereward", path = "{tmp_path}/train.jsonl" }}]
        data.eval = [{{ name = "basereward", path = "{tmp_path}/eval.jsonl" }}]
        train = {{ batch_size = 4, lr = 1e-2 }}
        """
    )
    return path


@pytest.mark.usefixtures("drawn_figures")
def test_a_run_file_becomes_a_model(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(run_file), "--set", "train.epochs=2"]) == 0
    output = capsys.readouterr()
    first, second, third, fourth = output.out.splitlines()
    assert first.startswith("trained 4 steps in ")
    assert second.startswith("held-out accuracy 1.0000 (0.6756 to 1.0000, 8 pairs) after step ")
    assert third == f"2 rows rejected: {run_file.parent}/run/rejected.jsonl"
    assert fourth == f"model: {run_file.parent}/run/model"
    assert "step 4/4: held-out accuracy 1.0000" in output.err

    assert main(["train", str(run_file), "--set", "train.epochs=2"]) == 2
    assert capsys.readouterr().err == (
        f"basereward: error: output: {run_file.parent}/run is not empty; resume the run there with --resume, "
        "replace it with --overwrite, or set another output\n"
    )
    assert main(["train", str(run_file), "--set", "train.epochs=2", "--resume", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["train", str(run_file), "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("trained 2 steps in ")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=2", "--set train.epoch=2: [train] has no key 'epoch'; did you mean 'epochs'? keys: "),
        ("head=mpl", "unknown head 'mpl'; did you mean 'mlp'? heads: "),
        ("head.layers=3", "head 'mlp' has no option 'layers'; did you mean 'layer'? options: "),
        (
            "backbone.model=./nowhere",
            "model './nowhere' is no directory and no hub id of the form owner/name",
        ),
        ("data.train.0.path=nowhere.jsonl", "nowhere.jsonl: no such file"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_allowed(
    run_file: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    assert main(["train", str(run_file), "--set", override]) == 2
    *progress, error = capsys.readouterr().err.splitlines()
    assert error.startswith(f"basereward: error: {message}")
    assert all(line.startswith(("reading data.", "building a model ")) for line in progress)
    assert "Traceback" not in error


def test_resume_and_overwrite_exclude_each_other(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", str(run_file), "--resume", "--overwrite"])
    assert "not allowed with argument" in capsys.readouterr().err
