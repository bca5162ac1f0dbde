from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from basereward import ops

SCRIPT = """
import torch
from basereward import ops
status = ops.status()["cpu"]
print(status["kernels"], "|", status["reason"])
try:
    loss, _ = ops.batched_bt_loss(torch.tensor([1.0, 0.0]), torch.tensor([[0, 1]]))
    print(f"{loss.item():.4f}")
except Exception as error:
    print(type(error).__name__, "|", error)
"""


def run(choice: str, script: str = SCRIPT) -> list[str]:
    environment = {**os.environ, "BASEREWARD_KERNELS": choice}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_status_says_which_kernels_and_why() -> None:
    status = ops.status()
    assert list(status) == ["cpu", "cuda", "host"]
    for part in status.values():
        assert set(part) == {"kernels", "reason", "library", "build"}
    if status["cpu"]["kernels"] == "cpp":
        assert status["cpu"]["library"].endswith("_C.abi3.so")
        assert {"torch", "compiler", "flags", "torch_target"} <= set(status["cpu"]["build"])
    if status["host"]["kernels"] == "cpp":
        assert {"compiler", "pybind11", "vectors", "commit"} <= set(status["host"]["build"])
    if torch.version.cuda is None and status["cpu"]["kernels"] == "cpp":
        assert status["cuda"]["reason"] == f"torch {torch.__version__} is built without CUDA"


# A torch that says it is built for CUDA stands for one that is; the library is asked for, and isn't there.
PRETEND = """
import torch
torch.version.cuda = "13.0"
import sys
sys.modules["basereward._C_cuda"] = None
from basereward import ops
from basereward.ops._loader import library
print(ops.status()["cuda"]["reason"])
try:
    library.compiled("cuda")
except Exception as error:
    print(type(error).__name__, "|", error)
"""


@pytest.mark.external
@pytest.mark.skipif(ops.status()["cpu"]["kernels"] != "cpp", reason=ops.status()["cpu"]["reason"])
def test_missing_cuda_kernels_are_told_and_how_to_build_them() -> None:
    reason = (
        "basereward._C_cuda was not built when the package was installed; "
        "`BASEREWARD_BUILD_CUDA=1 pip install -v .` in a checkout builds it, or shows why not"
    )
    assert run("auto", PRETEND) == [reason]
    assert run("cpp", PRETEND) == [
        reason,
        f"ConfigError | BASEREWARD_KERNELS=cpp, but {reason}; set it to auto",
    ]


@pytest.mark.external
def test_the_environment_can_choose_the_torch_kernels() -> None:
    assert run("torch") == ["torch | BASEREWARD_KERNELS=torch", "0.3133"]


@pytest.mark.external
def test_an_unknown_choice_is_an_error_at_the_first_call_not_at_import() -> None:
    reason = "BASEREWARD_KERNELS=fast is not understood; write auto, cpp or torch"
    assert run("fast") == [f"torch | {reason}", f"ConfigError | {reason}"]


# A finder that hides the library stands for an installation without it.
HIDDEN = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "basereward._C":
            raise {error}
sys.meta_path.insert(0, Hide())
"""
REBUILD = "`BASEREWARD_BUILD_EXT=1 pip install -v .` in a checkout builds it, or shows why not"
MISSING = f"basereward._C was not built when the package was installed; {REBUILD}"
BROKEN = f"basereward._C can't be loaded (undefined symbol: x); {REBUILD}"


STALE = """
import sys, types
sys.modules["basereward._C"] = types.ModuleType("basereward._C")
"""


@pytest.mark.external
def test_a_library_of_older_sources_is_not_used() -> None:
    reason = "basereward._C has no batched_bt_loss, so it was built from older sources; install again"
    assert run("auto", STALE + SCRIPT) == [f"torch | {reason}", "0.3133"]


@pytest.mark.external
@pytest.mark.parametrize(
    ("error", "reason"),
    [("ModuleNotFoundError(name)", MISSING), ("ImportError('undefined symbol: x')", BROKEN)],
    ids=["missing", "broken"],
)
def test_without_the_library_the_torch_kernels_are_used_unless_cpp_is_asked_for(
    error: type[Exception], reason: str
) -> None:
    script = HIDDEN.format(error=error) + SCRIPT
    assert run("auto", script) == [f"torch | {reason}", "0.3133"]
    assert run("cpp", script) == [f"torch | {reason}", f"ConfigError | BASEREWARD_KERNELS=cpp, but {reason}"]
