"""The command line, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from figures import blank_figures, drawn_figures

import basereward

__all__ = ["blank_figures", "drawn_figures"]

STARTERS = {"run_cli"}
"""Fixtures that start a process: the tests that use them are marked `external`."""

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start a process, before those of other tiers are left out."""
    for item in items:
        if STARTERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.external)


@pytest.fixture(scope="session")
def model_dir(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a tiny reward model with random weights, which sees images."""
    from basereward import RewardModel
    from basereward.config import Component

    directory = tmp_path_factory.mktemp("reward-model") / "model"
    backbone = Component("qwen-vl", {"model": str(tiny_models["qwen2_5_vl"])})
    RewardModel.build(backbone=backbone).save(directory)
    return directory


@pytest.fixture
def run_cli(tmp_path: Path) -> RunCli:
    """Return a function that runs `basereward` in a process of its own, in `tmp_path` by default."""

    def run(*arguments: str, cwd: Path = tmp_path, **environment: str) -> subprocess.CompletedProcess[str]:
        # A console script doesn't have the current directory on its path, but `python -m` has: hence -P.
        command = [sys.executable, "-P", "-m", "basereward", *arguments]
        path = os.pathsep.join([str(Path(basereward.__file__).parents[1]), environment.pop("PYTHONPATH", "")])
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BASEREWARD_")}
        environment = clean | {"PYTHONPATH": path.strip(os.pathsep)} | environment
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)

    return run
