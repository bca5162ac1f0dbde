"""`basereward doctor`: what a bug report needs."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING, Any

import pytest
import torch

from basereward import __version__, ops
from basereward.cli import doctor, main
from basereward.extras import Requirements
from basereward.hardware.threads import SPIN_COUNT, has_gpu

if TYPE_CHECKING:
    from pathlib import Path


def test_doctor_reports_what_there_is(run_cli: Any) -> None:
    done = run_cli("doctor", "--json", BASEREWARD_DISABLE_PLUGINS="*", BASEREWARD_KERNELS="torch")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["basereward"]["version"] == __version__
    assert facts["packages"]["torch"] == torch.__version__
    assert facts["kernels"]["cpu"]["kernels"] == "torch"
    assert facts["kernels"]["host"]["kernels"] == "numpy"
    assert facts["plugins"]["basereward"] == __version__
    assert facts["environment"]["BASEREWARD_KERNELS"] == "torch"
    assert 1 <= facts["cores"]["usable"] <= facts["cores"]["all"]
    if not has_gpu({}):
        assert facts["environment"]["GOMP_SPINCOUNT"] == SPIN_COUNT
    assert facts["problems"] == []
    assert set(facts["extras"]) == {"data", "judge", "quantized", "ray", "rl", "serve", "train", "video"}
    assert set(facts["packages"]) > {"torch", "transformers", "pyarrow", "matplotlib"}
    missing = [name for name, state in facts["extras"].items() if state != "installed"]
    ending = f"; not installed: {', '.join(missing)}" if missing else ", with every extra"
    # The plain ops were asked for, so that they are no reason to warn.
    slower = ", but more slowly than it could: see the warnings" if facts["warnings"] else ""
    assert facts["verdict"] == f"works{slower}{ending}"


def test_doctor_prints_the_speeds_and_warns_of_what_forces_the_slow_one(run_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        'output = "run"\n[backbone]\nname = "tiny"\n[[data.train]]\nname = "jsonl"\n'
        '[train]\nprecision = "bf16"\n'
    )
    slow = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "BASEREWARD_DISABLE_PLUGINS": "*"}
    done = run_cli("doctor", "run.toml", "--json", **slow)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    speeds = facts["matrix products"]
    assert speeds["fp32"].endswith(" GFLOP/s")
    assert speeds["bf16"].endswith(" GFLOP/s")
    if platform.machine() == "x86_64" and speeds["device"] == "cpu":
        assert speeds["auto"] == "fp32: ONEDNN_MAX_CPU_ISA=AVX2 switches bf16 instructions off"
        slower = "run.toml: precision = 'bf16' is slower than fp32 here: ONEDNN_MAX_CPU_ISA=AVX2"
        assert facts["warnings"][0].startswith(slower)
    assert run_cli("doctor", "none.toml").returncode == 2


def test_doctor_ends_with_the_problems(run_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import no_such_module\n")
    done = run_cli("-p", "bad", "doctor")
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert said.endswith(
        "problem: plugin 'bad' did not load: ModuleNotFoundError: No module named 'no_such_module' "
        "does not work as it should: 1 problem"
    )


def test_doctor_says_what_an_extra_lacks_and_what_is_too_old(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = Requirements(("torch>=99",), {"train": ("no-such-package", "pytest")}, is_released=False)
    monkeypatch.setattr(doctor, "requirements", lambda: needed)
    assert main(["doctor", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["extras"] == {
        "train": "no-such-package is not installed: pip install no-such-package pytest"
    }
    assert facts["problems"] == [f"torch is {torch.__version__}, not >=99"]
    assert facts["verdict"] == "does not work as it should: 1 problem"


def test_doctor_warns_of_native_libraries_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = {"kernels": "torch", "reason": "it was not built", "library": "", "build": {}}
    built = {**missing, "kernels": "cpp", "reason": "it is there"}
    monkeypatch.delenv("BASEREWARD_KERNELS", raising=False)
    monkeypatch.setattr(ops, "status", lambda: {"cpu": built, "cuda": built, "host": missing})
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "warning: the native helpers of the data path are not in use: it was not built" in lines
    assert lines[-1].startswith("works, but more slowly than it could: see the warnings")


def test_doctor_survives_a_broken_torch(run_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so is missing')\n")
    # Before the real one, so not through the current directory, which comes last.
    done = run_cli("doctor", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "problem: torch can't be imported: libcudart.so is missing" in done.stdout.splitlines()
