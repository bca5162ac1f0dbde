"""One reward model a node: a server that its first process starts, and that all its processes ask."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

START_SECONDS = 1800.0
"""How long a server may take to load its model."""


def scorer_gpu(num_gpus: int, num_processes: int) -> int | None:
    """Return the GPU of a node that its reward model takes: one that no process trains on, else the last.

    Args:
        num_gpus: GPUs of the node; 0 for a reward model on the CPU.
        num_processes: Processes of the node, of which each trains on the GPU of its local rank.
    """
    if not num_gpus:
        return None
    return num_processes if num_gpus > num_processes else num_gpus - 1


@contextmanager
def node_scorer(
    model: str,
    *,
    port: int,
    num_gpus: int,
    gpu: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[str]:
    """Give the address of this node's reward model, which its first process loads once, on one GPU.

    Args:
        model: The model's directory; the address of a server is given as it is.
        port: The port of this node that the server listens at, for this node alone.
        num_gpus: GPUs of the node.
        gpu: The server's GPU; None for that of `scorer_gpu`.
        environment: With `LOCAL_RANK` and `LOCAL_WORLD_SIZE`, as torchrun sets them.

    Raises:
        SystemExit: When the server ends, or isn't ready in half an hour.
    """
    if model.startswith(("http://", "https://")):
        yield model
        return
    address = f"http://127.0.0.1:{port}"
    server: subprocess.Popen[bytes] | None = None
    if environment.get("LOCAL_RANK", "0") == "0":
        chosen = scorer_gpu(num_gpus, int(environment.get("LOCAL_WORLD_SIZE", "1"))) if gpu is None else gpu
        if _is_taken(port):
            raise SystemExit(f"something else listens at port {port}; give another by --scorer-port")
        server = _started(model, port, chosen, environment)
    try:
        _wait_until_ready(address, server)
        yield address
    finally:
        if server is not None:
            server.terminate()
            server.wait()


def _is_taken(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _started(
    model: str, port: int, gpu: int | None, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start the server, which sees its own GPU alone and is no process of the training."""
    theirs = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    own = {name: value for name, value in environment.items() if name not in theirs}
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    if gpu is not None:
        own["CUDA_VISIBLE_DEVICES"] = visible.split(",")[gpu] if visible else str(gpu)
    device = "cpu" if gpu is None else "cuda"
    command = [sys.executable, "-m", "basereward", "serve", model, "--port", str(port), "--device", device]
    return subprocess.Popen(command, env=own)


def _wait_until_ready(address: str, server: subprocess.Popen[bytes] | None) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server is not None and server.poll() is not None:
            raise SystemExit(f"the reward model's server at {address} ended with {server.returncode}")
        try:
            with urllib.request.urlopen(f"{address}/ready", timeout=10) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.5)
    raise SystemExit(f"the reward model's server at {address} isn't ready after {START_SECONDS:.0f} s")
