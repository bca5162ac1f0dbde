"""The cores that a process may use, and the threads on them: OpenMP's, and Python's."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path

ROOT = Path("/")
GPU_FILES = ("dev/nvidiactl", "dev/kfd", "dev/dxg")
"""Of the drivers of NVIDIA, AMD, and GPUs in WSL."""

SPIN_COUNT = "1000"
"""How often a thread of GNU's OpenMP looks for work before it sleeps: 10 to 50 µs, longer than Python takes
from one op to the next. The default, 300,000, is some milliseconds, at each of a pass's hundreds of ops."""

BLOCK_MS = "1"
"""The same for LLVM's and Intel's OpenMP, in milliseconds; the default is 200."""

SWITCH_SECONDS = 0.0002
"""How long a thread of Python computes until another gets a turn; Python's default is 0.005. A model's pass
asks for a turn after each of its hundreds of ops, and waits so long each time while another thread computes.
"""

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables by which a user chooses how threads wait."""


def num_cores(root: Path = ROOT) -> int:
    """Return how many cores this process may use: by its affinity, and by the CPU limit of its cgroups.

    A limit of 1.5 cores counts as 2, one of 1.4 as 1: threads that are stopped in turn wait for each other.

    Args:
        root: The root of the file system.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = min(_cgroup_limits(root), default=math.inf)
    return usable if limit >= usable else max(1, math.floor(limit + 0.5))


def _cgroup_limits(root: Path) -> Iterator[float]:
    """Yield the limits of the process's cgroup and those that it lies in, in cores."""
    mounted = root / "sys/fs/cgroup"
    for controllers, path in _memberships(root / "proc/self/cgroup"):
        if not controllers:  # version 2
            for directory in _directories(mounted, path):
                quota, _, period = _read(directory / "cpu.max").partition(" ")
                yield from _cores(quota, period)
        elif "cpu" in controllers.split(","):
            for name in ("cpu", controllers):
                for directory in _directories(mounted / name, path):
                    quota, period = (_read(directory / f"cpu.cfs_{part}_us") for part in ("quota", "period"))
                    yield from _cores(quota, period)


def _memberships(path: Path) -> Iterator[tuple[str, str]]:
    """Yield controllers and path of each hierarchy that a process is in; no controllers for version 2."""
    for line in _read(path).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        yield controllers, place


def _directories(mounted: Path, path: str) -> Iterator[Path]:
    """Yield the directory of a cgroup and those above it.

    In a container the path may be the host's, which is not there: the limit then stands in the top directory.
    """
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for number in range(len(parts), -1, -1):
        yield mounted.joinpath(*parts[:number])


def _cores(quota: str, period: str) -> Iterator[float]:
    if quota.isdecimal() and period.isdecimal() and int(period) > 0:
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def has_gpu(environ: MutableMapping[str, str], root: Path = ROOT) -> bool:
    """Tell whether a driver of GPUs is there, and CUDA_VISIBLE_DEVICES hides none; torch isn't asked."""
    if environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    return any((root / name).exists() for name in GPU_FILES)


def set_openmp_defaults(environ: MutableMapping[str, str] = os.environ, root: Path = ROOT) -> None:
    """Choose the number of OpenMP's threads and, without a GPU, how they wait, before torch is loaded.

    OpenMP reads the variables once, when it is loaded, and a variable that is set is left as it is. Its
    threads spin while they wait for work: on a machine with other work, or with fewer cores than the host
    shows, they take the time of those that have some.

    Args:
        environ: The environment.
        root: The root of the file system.
    """
    if "torch" in sys.modules and environ is os.environ:
        return
    if "OMP_NUM_THREADS" not in environ and (cores := num_cores(root)) < (os.cpu_count() or 1):
        environ["OMP_NUM_THREADS"] = str(cores)
    if environ.keys().isdisjoint(CHOICES) and not has_gpu(environ, root):
        environ["GOMP_SPINCOUNT"] = SPIN_COUNT
        environ["KMP_BLOCKTIME"] = BLOCK_MS


def shorten_turns() -> None:
    """Let threads of Python take turns at least every `SWITCH_SECONDS`, in the whole process."""
    if sys.getswitchinterval() > SWITCH_SECONDS:
        sys.setswitchinterval(SWITCH_SECONDS)
