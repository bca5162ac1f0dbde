"""Cores by affinity and cgroups, and how OpenMP's threads wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from basereward.hardware import threads
from basereward.hardware.threads import has_gpu, num_cores, set_openmp_defaults

LIMITS = {
    "version 2": ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "300000 100000\n"}, 3),
    "version 2, above": (
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
        },
        2,
    ),
    "version 2, in a container": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
    "version 2, a host's path": (
        {"proc/self/cgroup": "0::/../other\n", "sys/fs/cgroup/cpu.max": "250000 100000"},
        3,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/docker/1234\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "140000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
        1,
    ),
    "version 1, by a link's name": (
        {
            "proc/self/cgroup": "4:cpuacct,cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        2,
    ),
    "version 1, none": (
        {
            "proc/self/cgroup": "4:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        8,
    ),
    "more than there are": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "6400000 100000"}, 8),
    "damaged": ({"proc/self/cgroup": "0\n", "sys/fs/cgroup/cpu.max": "100000 0"}, 8),
    "no cgroups": ({}, 8),
}


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process run on 8 of 16 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)


@pytest.mark.parametrize("name", LIMITS)
def test_cores_are_those_of_the_affinity_and_of_the_tightest_cgroup(name: str, tmp_path: Path) -> None:
    files, expected = LIMITS[name]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert num_cores(tmp_path) == expected


def test_threads_are_limited_and_wait_passively_without_a_gpu(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    set_openmp_defaults(environ, tmp_path)
    waiting = {"GOMP_SPINCOUNT": threads.SPIN_COUNT, "KMP_BLOCKTIME": threads.BLOCK_MS}
    assert environ == {"OMP_NUM_THREADS": "8", **waiting}


def test_all_cores_need_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    environ: dict[str, str] = {}
    set_openmp_defaults(environ, tmp_path)
    assert "OMP_NUM_THREADS" not in environ


@pytest.mark.parametrize("variable", threads.CHOICES)
def test_the_user_s_choices_stay(variable: str, tmp_path: Path) -> None:
    given = {"OMP_NUM_THREADS": "3", variable: "ACTIVE"}
    environ = dict(given)
    set_openmp_defaults(environ, tmp_path)
    assert environ == given


@pytest.mark.parametrize(
    ("visible", "file", "expected"),
    [
        (None, "dev/nvidiactl", True),
        (None, "dev/kfd", True),
        ("0,1", "dev/nvidiactl", True),
        ("", "dev/nvidiactl", False),
        ("-1", "dev/nvidiactl", False),
        (None, "dev/null", False),
    ],
)
def test_a_gpu_keeps_the_threads_as_they_are(
    visible: str | None, file: str, expected: bool, tmp_path: Path
) -> None:
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).touch()
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert has_gpu(environ, tmp_path) == expected
    set_openmp_defaults(environ, tmp_path)
    assert ("GOMP_SPINCOUNT" in environ) != expected


STATE = "(dict(os.environ), sys.getswitchinterval())"


def test_importing_the_library_sets_nothing() -> None:
    code = f"import os, sys; before = {STATE}; import basereward.cli; assert {STATE} == before"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("before", "after"), [(0.005, threads.SWITCH_SECONDS), (0.0001, 0.0001)])
def test_a_command_lets_threads_take_short_turns(before: float, after: float) -> None:
    code = (
        f"import sys; sys.setswitchinterval({before}); sys.argv = ['basereward', 'plugins']\n"
        "from basereward.cli import main\n"
        f"assert main(['plugins']) == 0 and abs(sys.getswitchinterval() - {before}) < 1e-6\n"
        "assert main() == 0; print(sys.getswitchinterval())"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(found.stdout.splitlines()[-1]) == pytest.approx(after, abs=1e-6)  # kept in whole µs
