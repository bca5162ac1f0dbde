"""Find a package's native libraries, say why each is or isn't used, and keep to what the user chose."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

# Comes first: it loads the libraries that those of ops are linked with.
import torch

from basereward.errors import ConfigError
from basereward.extension import left_out

KERNELS: Final = ("auto", "cpp", "torch")
VARIABLE: Final = "BASEREWARD_KERNELS"

REBUILD: Final = "`{variable}=1 pip install -v .` in a checkout builds it, or shows why not"


@dataclass(frozen=True)
class Part:
    """One native library: loaded, or the reason why not.

    Attributes:
        module: What was imported; None without one.
        reason: Why it is, or is not, used.
        build: How it was built: compiler, flags, torch ...; empty without one.
    """

    module: Any
    reason: str
    build: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, name: str, choice: str, variable: str = "BASEREWARD_BUILD_EXT") -> Part:
        """Import a library if the value of BASEREWARD_KERNELS allows it.

        Args:
            name: The module's.
            choice: auto, cpp or torch.
            variable: What makes a failure to build it an error.
        """
        if choice not in KERNELS:
            return cls(None, f"{VARIABLE}={choice} is not understood; write auto, cpp or torch")
        if choice == "torch":
            return cls(None, f"{VARIABLE}=torch")
        rebuild = REBUILD.format(variable=variable)
        package, _, short = name.rpartition(".")
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            reasons = left_out(Path(importlib.import_module(package).__path__[0]))
            reason = reasons.get(name) or reasons.get("the native ops", "")
            why = f" ({reason})" if reason else ""
            return cls(None, f"{name} was not built when the package was installed{why}; {rebuild}")
        except ImportError as error:
            return cls(None, f"{name} can't be loaded ({error}); {rebuild}")
        info = Path(importlib.import_module(package).__path__[0]) / f"{short}.json"
        build = json.loads(info.read_text(encoding="utf-8")) if info.exists() else {}
        return cls(module, f"{VARIABLE}={choice}, and {name} is there", build)

    @property
    def path(self) -> str:
        """The path of the library; empty without one."""
        return "" if self.module is None else str(self.module.__file__)

    def status(self, plain: str = "torch") -> dict[str, Any]:
        """Return what `basereward.ops.status` tells of one library."""
        kernels = plain if self.module is None else "cpp"
        return {"kernels": kernels, "reason": self.reason, "library": self.path, "build": dict(self.build)}


class Library:
    """The native ops of a package: `package._C` with their schemas and CPU kernels, `package._C_cuda`.

    Where `compiled` says no, the caller takes its plain-torch twin.

    Args:
        package: Whose they are; the ops' namespace, too.
        ops: Their names. A library that lacks one was built from older sources and isn't used.
        choice: auto takes the compiled kernels where they exist, cpp insists on them, torch never uses them;
            None for the value of BASEREWARD_KERNELS.
    """

    def __init__(self, package: str, ops: Sequence[str], choice: str | None = None) -> None:
        self.package = package
        self.choice = os.environ.get(VARIABLE, "auto") if choice is None else choice
        self.cpu = self._with_all(ops, Part.load(f"{package}._C", self.choice))
        self.cuda = self._load_cuda()
        parts = {"cpu": self.cpu, "cuda": self.cuda}
        self.devices = frozenset(name for name, part in parts.items() if part.module is not None)
        """Types of devices on which compiled kernels run."""

    def _load_cuda(self) -> Part:
        if self.cpu.module is None:
            return Part(None, self.cpu.reason)
        if torch.version.cuda is None:
            return Part(None, f"torch {torch.__version__} is built without CUDA")
        return Part.load(f"{self.package}._C_cuda", self.choice, "BASEREWARD_BUILD_CUDA")

    def _with_all(self, ops: Sequence[str], part: Part) -> Part:
        """Return the library, or the reason not to use it if it lacks an op."""
        there = getattr(torch.ops, self.package)
        missing = [name for name in ops if part.module is not None and not hasattr(there, name)]
        if not missing:
            return part
        lacks = f"{self.package}._C has no {missing[0]}, so it was built from older sources; install again"
        return Part(None, lacks)

    def compiled(self, device_type: str) -> bool:
        """Return whether a compiled kernel runs on tensors of this device.

        Raises:
            ConfigError: When BASEREWARD_KERNELS asks for what there isn't.
        """
        if _passed_over is not None:
            if device_type in self.devices:
                _passed_over.add(self.package)
            return False
        if device_type in self.devices:
            return True
        if self.choice in ("auto", "torch"):
            return False
        if self.choice != "cpp":
            raise ConfigError(self.cpu.reason)
        if device_type == "cuda":
            raise ConfigError(f"{VARIABLE}=cpp, but {self.cuda.reason}; set it to auto")
        if self.devices:
            raise ConfigError(
                f"{VARIABLE}=cpp, but there are no compiled kernels for {device_type}; set it to auto"
            )
        raise ConfigError(f"{VARIABLE}=cpp, but {self.cpu.reason}")

    def status(self) -> dict[str, dict[str, Any]]:
        """Return which kernels are in use, why, and how the libraries were built.

        Returns:
            Under `cpu` and `cuda`: `kernels` ("cpp" or "torch"), `reason`, `library` (its path, or "") and
            `build` (compiler, flags, torch ...; empty without a library).
        """
        return {"cpu": self.cpu.status(), "cuda": self.cuda.status()}


# A context variable would break the graphs of torch.compile.
_passed_over: set[str] | None = None


@contextlib.contextmanager
def plain_kernels() -> Iterator[set[str]]:
    """Have every `Library` say that it has no compiled kernels, so that the plain-torch twins run.

    Yields:
        The packages whose compiled kernels would have run, as calls come.
    """
    global _passed_over
    before, _passed_over = _passed_over, set()
    try:
        yield _passed_over
    finally:
        _passed_over = before
