"""Commands and snippets of the documents work as they are written."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

from basereward import RewardModel, cli, hookspecs
from basereward.config import Component, load_run
from basereward.plugins import PluginManager

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def name_of(command: str) -> str:
    """Return which of our commands a line runs."""
    return command.split()[1]


COMMANDS = [
    line.partition(" #")[0].strip()
    for block in blocks(README, "bash")
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]
OURS = [command for command in COMMANDS if command.startswith("basereward ")]


@pytest.fixture(scope="module")
def place(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the files that the README's commands name."""
    place = tmp_path_factory.mktemp("readme")
    torch.manual_seed(0)
    backbone = Component("qwen-vl", {"model": str(tiny_models["qwen2_5_vl"])})
    for name in ("demo", "other"):
        RewardModel.build(backbone=backbone, plugins=PluginManager()).save(place / "runs" / name / "model")
    (place / "Qwen2.5-VL-3B-Instruct").symlink_to(tiny_models["qwen2_5_vl"])
    tiny.image().save(place / "cat.png")
    (row,) = blocks(README, "json")
    for name in ("pairs", "held-out"):
        (place / f"{name}.jsonl").write_text(row)
    (place / "rows.jsonl").write_text(row * 3)
    (place / "run.toml").write_text(
        f"""
        output = "runs/first"
        backbone = {{ name = "qwen-vl", model = "{tiny_models["qwen2_5_vl"]}" }}
        data = {{ train = [{{ name = "basereward", path = "rows.jsonl" }}] }}
        train = {{ max_steps = 1 }}
        """
    )
    (place / "heads.toml").write_text(
        """
        title = "Heads"
        output = "runs/heads"
        seeds = [0]
        baseline = { layers = "2" }
        held_out = { pairs = "pair accuracy" }
        run = { base = "run.toml", data.eval = [{ name = "basereward", path = "pairs.jsonl" }] }
        axes.layers.2.head.num_layers = 2
        """
    )
    return place


def run(place: Path, *command: str) -> str:
    """Run a command in the directory and return what it prints."""
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.external
@pytest.mark.parametrize("command", [command for command in OURS if name_of(command) == "serve"])
def test_a_server_of_the_readme_runs(place: Path, command: str) -> None:
    _, *arguments = shlex.split(command)
    server = subprocess.Popen(
        [sys.executable, "-m", "basereward", *arguments, "--port", "0"],
        cwd=place,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    try:
        said = ""
        while " on http://" not in said:
            line = server.stderr.readline()
            assert line, said
            said += line
        server.terminate()
        assert "requests: 0 answered" in server.communicate(timeout=30)[1]
    finally:
        server.kill()
        server.communicate()
    assert server.returncode == 0


def test_the_commands_of_the_readme_run_one_after_another(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    commands = [command for command in OURS if name_of(command) != "serve"]
    for command in commands:
        _, *arguments = shlex.split(command)
        assert cli.main(arguments) == 0, f"{command}: {capsys.readouterr().err}"
        printed = capsys.readouterr().out
        if name_of(command) == "score-shards":
            assert (place / arguments[-1] / "summary.json").is_file()
        elif "--output" in arguments and name_of(command) != "train":
            assert len((place / arguments[-1]).read_text().splitlines()) == 3
        else:
            assert printed, command


@pytest.mark.external
@pytest.mark.parametrize("command", [command for command in OURS if name_of(command) in ("data", "plugins")])
def test_a_command_of_the_readme_runs_as_it_is_typed(place: Path, command: str) -> None:
    name, *arguments = shlex.split(command)
    assert name == "basereward"
    assert run(place, sys.executable, "-m", "basereward", *arguments)


def test_the_readme_shows_the_main_commands() -> None:
    main = {"train", "plan", "plot", "ensemble", "evaluate", "score", "score-shards", "data", "plugins"}
    main |= {"audit", "best-of-n", "doctor", "init", "serve", "study"}
    assert {name_of(command) for command in OURS} == main


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_a_make_target_of_the_readme_is_there(command: str) -> None:
    done = subprocess.run(
        [*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "basereward" in done.stdout or "pytest" in done.stdout


@pytest.mark.external
def test_the_python_of_the_readme_runs(place: Path) -> None:
    code = next(block for block in blocks(README, "python") if "RewardModel" in block)
    first, second = json.loads(run(place, sys.executable, "-c", code))
    assert first != second


@pytest.mark.external
def test_the_reward_function_of_the_readme_rewards_a_right_answer_with_1(place: Path) -> None:
    code = next(block for block in blocks(README, "python") if "reward_func" in block)
    completions = {"completions": ["a cat", "a dog"], "completion_ids": [[1], [2]]}
    columns = {"prompts": ["What is it?"] * 2, "answer": ["a cat"] * 2, **completions}
    right, wrong = json.loads(run(place, sys.executable, "-c", f"{code}\nprint(reward(**{columns}))"))
    assert right == 1.0
    assert 0 < wrong < 1  # the sigmoid of its reward


def test_the_run_file_of_the_readme_is_valid(tmp_path: Path) -> None:
    (text,) = blocks(README, "toml")
    (tmp_path / "run.toml").write_text(text)
    config = load_run(tmp_path / "run.toml")
    plugins = PluginManager()
    for kind in ("backbone", "head", "loss", "paradigm"):
        assert plugins.resolve(kind, getattr(config, kind)).name == getattr(config, kind).name


@pytest.mark.parametrize("text", [README, (ROOT / "docs/plugins.md").read_text(encoding="utf-8")])
def test_the_plugin_of_the_documents_registers(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = next(block for block in blocks(text, "python") if "hookimpl" in block)
    (tmp_path / "documented_plugin.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "documented_plugin", raising=False)
    assert "focal" in PluginManager(["documented_plugin"]).names("loss")


def test_every_hook_is_documented() -> None:
    text = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
    hooks = [name for name in vars(hookspecs) if name.startswith("basereward_")]
    assert len(hooks) == 10
    for hook in hooks:
        assert f"`{hook}(" in text


def test_every_path_that_a_document_links_to_is_there() -> None:
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
