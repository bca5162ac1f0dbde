"""Find the native library, and say why it is or isn't used."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any, Final

# Comes first: it loads the libraries that basereward._C is linked with.
import torch

from basereward.errors import ConfigError

KERNELS: Final = ("auto", "cpp", "torch")
VARIABLE: Final = "BASEREWARD_KERNELS"

OPS: Final = ("batched_bt_loss", "pairwise_reward_head", "pairwise_reward_head_backward")

REBUILD: Final = "`BASEREWARD_BUILD_EXT=1 pip install --no-build-isolation -v .` in a checkout shows why"


class Library:
    """The native library of ops: loaded, or the reason why not.

    Args:
        choice: The value of BASEREWARD_KERNELS: auto takes the compiled kernels where they exist, cpp insists
            on them, torch never uses them.
    """

    def __init__(self, choice: str) -> None:
        self.choice = choice
        self.path: Path | None = None
        self.build: dict[str, Any] = {}
        self.devices: frozenset[str] = frozenset()
        """Types of devices on which compiled kernels run."""
        self.reason = self._load()

    def _load(self) -> str:
        """Import the library and return why kernels are, or are not, compiled."""
        if self.choice not in KERNELS:
            return f"{VARIABLE}={self.choice} is not understood; write auto, cpp or torch"
        if self.choice == "torch":
            return f"{VARIABLE}=torch"
        try:
            module = importlib.import_module("basereward._C")
        except ModuleNotFoundError:
            return f"basereward._C was not built when the package was installed; {REBUILD}"
        except ImportError as error:
            return f"basereward._C can't be loaded ({error}); {REBUILD}"
        missing = [name for name in OPS if not hasattr(torch.ops.basereward, name)]
        if missing:
            return f"basereward._C has no {missing[0]}, so it was built from older sources; install again"
        self.path = Path(str(module.__file__))
        info = self.path.with_name("_C.json")
        self.build = json.loads(info.read_text(encoding="utf-8")) if info.exists() else {}
        self.devices = frozenset({"cpu"})
        return f"{VARIABLE}={self.choice}, and basereward._C is there"

    def compiled(self, device_type: str) -> bool:
        """Return whether a compiled kernel runs on tensors of this device.

        Raises:
            ConfigError: When BASEREWARD_KERNELS asks for what there isn't.
        """
        if device_type in self.devices:
            return True
        if self.choice in ("auto", "torch"):
            return False
        if self.choice == "cpp" and self.devices:
            raise ConfigError(
                f"{VARIABLE}=cpp, but there are no compiled kernels for {device_type}; set it to auto"
            )
        raise ConfigError(f"{VARIABLE}=cpp, but {self.reason}" if self.choice == "cpp" else self.reason)


library: Final = Library(os.environ.get(VARIABLE, "auto"))


def status() -> dict[str, Any]:
    """Return which kernels the ops use on the CPU, why, and how the library was built.

    Returns:
        `kernels` ("cpp" or "torch"), `reason`, `library` (its path, or ""), `build` (compiler, flags, torch
        ...; empty without a library).
    """
    return {
        "kernels": "cpp" if "cpu" in library.devices else "torch",
        "reason": library.reason,
        "library": "" if library.path is None else str(library.path),
        "build": dict(library.build),
    }
