"""Fixtures: servers of tiny models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import tiny
from served import Client, Echo, encoded, running

from basereward.serving.app import Server
from basereward.serving.engine import ModelEngine


@pytest.fixture
def serve() -> Iterator[Callable[[Server], Client]]:
    """Return a function that runs a server until the test is over."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(running(server))


@pytest.fixture(scope="session")
def image() -> str:
    """Return an image as base64."""
    return encoded(tiny.image(84, 56))


@pytest.fixture(scope="session")
def vision_model(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a tiny reward model with random weights, which sees images."""
    from basereward import RewardModel
    from basereward.config import Component

    directory = tmp_path_factory.mktemp("served") / "sees"
    backbone = Component("qwen-vl", {"model": str(tiny_models["qwen2_5_vl"])})
    RewardModel.build(backbone=backbone).save(directory)
    return directory


@pytest.fixture(scope="session")
def vision_engine(vision_model: Path) -> ModelEngine:
    """Return an engine that sees images."""
    return ModelEngine.load("sees", vision_model, device="cpu")


@pytest.fixture(scope="session")
def vision(vision_engine: ModelEngine) -> Iterator[Client]:
    """Return a client of a server whose model sees images."""
    with running(Server([vision_engine])) as client:
        yield client


@pytest.fixture(scope="session")
def echo() -> Iterator[Client]:
    """Return a client of a server whose rewards are the numbers of characters of the responses."""
    with running(Server([Echo()])) as client:
        yield client
