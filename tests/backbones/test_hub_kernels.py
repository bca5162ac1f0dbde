"""Importing bitsandbytes and PEFT fetches no kernel of the hub, though the package `kernels` is there."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from basereward.backbones.hub_kernels import import_bitsandbytes, without_kernels

KERNELS = """
import os
def get_kernel(name, **options):
    with open(os.environ["FETCHED"], "a") as file:
        file.write(name + "\\n")
    raise OSError(name)
"""
"""A package `kernels` that lists what it is asked for."""

BITSANDBYTES = """
try:
    from kernels import get_kernel
    get_kernel("kernels-community/quantization-bitsandbytes", version=1)
except Exception:
    pass
"""
"""A package that does, while it is imported, what bitsandbytes does on a CPU with bf16."""


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have both packages come first, and return the list of what is fetched."""
    (tmp_path / "kernels.py").write_text(KERNELS)
    (tmp_path / "bitsandbytes.py").write_text(BITSANDBYTES)
    monkeypatch.setenv("FETCHED", str(tmp_path / "fetched"))
    monkeypatch.delenv("USE_HUB_KERNELS", raising=False)
    kept = {name: sys.modules.pop(name) for name in ("kernels", "bitsandbytes") if name in sys.modules}
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "fetched"
    for name in ("kernels", "bitsandbytes"):
        sys.modules.pop(name, None)
    sys.modules.update(kept)


@pytest.mark.parametrize(
    ("setting", "is_fetched"), [(None, False), ("NO", False), ("0", False), ("yes", True)]
)
def test_bitsandbytes_fetches_a_kernel_only_where_it_is_asked_to(
    fetched: Path, setting: str | None, is_fetched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting is not None:
        monkeypatch.setenv("USE_HUB_KERNELS", setting)
    import_bitsandbytes()
    assert fetched.exists() == is_fetched
    assert importlib.import_module("kernels").__file__ == str(fetched.with_name("kernels.py"))


def test_the_package_is_what_it_was_afterwards(fetched: Path) -> None:
    kernels = importlib.import_module("kernels")
    with without_kernels():
        with pytest.raises(ImportError):
            importlib.import_module("kernels")
        assert importlib.util.find_spec("kernels") is None
    assert importlib.import_module("kernels") is kernels


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "from basereward.training.lora import _peft_config as c; from basereward.config import LoraConfig; "
        "c(LoraConfig(), '')",
        "from basereward.backbones.hub_kernels import prepare_peft; prepare_peft(); import peft",
        "from basereward.training.optimizers import _adamw_8bit as a; a()",
        "import torch; from basereward.backbones.quantization import loading_arguments as a; "
        "a(torch.float32, [])",
    ],
)
def test_the_installed_packages_fetch_none(tmp_path: Path, code: str) -> None:
    (tmp_path / "kernels.py").write_text(KERNELS)
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}",
        "FETCHED": str(tmp_path / "fetched"),
    }
    environment.pop("USE_HUB_KERNELS", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert not (tmp_path / "fetched").exists()
