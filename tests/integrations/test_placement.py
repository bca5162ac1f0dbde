"""One reward model a node, served by its first process."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from basereward import Comparison, RewardModel
from basereward.config import Component
from basereward.integrations.reward_source import reward_source

TINY = Component("tiny", {"dim": 16, "num_layers": 1, "num_heads": 2})


@pytest.mark.parametrize(
    ("num_gpus", "num_processes", "gpu"),
    [(0, 2, None), (1, 1, 0), (8, 8, 7), (8, 4, 4), (8, 7, 7)],
)
def test_the_scorer_takes_a_gpu_without_a_process_or_the_last(
    num_gpus: int, num_processes: int, gpu: int | None, recipe: Any
) -> None:
    assert recipe("placement").scorer_gpu(num_gpus, num_processes) == gpu


def test_an_address_is_taken_as_it_is(recipe: Any) -> None:
    with recipe("placement").node_scorer("http://node-7:8000", port=1, num_gpus=8) as address:
        assert address == "http://node-7:8000"


def test_the_server_sees_its_own_gpu_alone(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []
    placement = recipe("placement")
    monkeypatch.setattr(placement.subprocess, "Popen", lambda command, env: started.append((command, env)))
    environment = {"LOCAL_RANK": "0", "MASTER_ADDR": "node-0", "WORLD_SIZE": "16", "HOME": "/home"}
    placement._started("model", 8765, 7, environment)
    placement._started("model", 8765, 1, {**environment, "CUDA_VISIBLE_DEVICES": "4,5"})
    placement._started("model", 8765, None, environment)
    ends = [(command[-5:], env) for command, env in started]
    assert ends == [
        (["model", "--port", "8765", "--device", "cuda"], {"HOME": "/home", "CUDA_VISIBLE_DEVICES": "7"}),
        (["model", "--port", "8765", "--device", "cuda"], {"HOME": "/home", "CUDA_VISIBLE_DEVICES": "5"}),
        (["model", "--port", "8765", "--device", "cpu"], {"HOME": "/home"}),
    ]


def test_a_port_that_is_taken_is_no_scorer(recipe: Any) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        scorer = recipe("placement").node_scorer("model", port=port, num_gpus=0, environment={})
        with pytest.raises(SystemExit, match=f"something else listens at port {port}"):
            scorer.__enter__()


@pytest.mark.external
def test_the_processes_of_a_node_share_one_served_model(recipe: Any, tmp_path: Path) -> None:
    import os

    model = RewardModel.build(backbone=TINY)
    model.save(tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    placement = recipe("placement")

    def scorer(rank: int) -> Any:
        environment = {**os.environ, "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
        return placement.node_scorer(str(tmp_path / "model"), port=port, num_gpus=0, environment=environment)

    rows = [Comparison("what", ["a cat", "a dog"])]
    with scorer(0) as first, scorer(1) as second:
        assert first == second == f"http://127.0.0.1:{port}"
        [rewards] = reward_source(second)(rows)
        assert rewards == pytest.approx(model.score(rows)[0], abs=1e-5)
    assert not placement._is_taken(port)
