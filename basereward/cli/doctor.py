"""`basereward doctor`: what a bug report needs to know about this machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basereward._version import __version__
from basereward.cli.command import WIDTH, Command
from basereward.extras import DEVELOPMENT, requirements, unmet
from basereward.hardware.threads import num_cores
from basereward.plugins.plugin_manager import manager

if TYPE_CHECKING:
    from collections.abc import Sequence

    from basereward.extras import Requirements

VARIABLES = (
    *("BASEREWARD_", "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_OFFLINE", "OMP_", "GOMP_", "KMP_"),
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"),
)
INSTALLED = "installed"
TITLES = {
    "cpu": "native ops",
    "host": "native helpers of the data path",
    "cuda": "CUDA kernels",
}
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
MEMORY = Path("/proc/meminfo")
CONTAINER_MEMORY = Path("/sys/fs/cgroup/memory.max")


COMMAND = Command(
    description="Say what is installed and what works here. Exit status 1 if something needed doesn't.",
    examples="""\
  basereward doctor
  basereward doctor run.toml          # whether it forces a precision that is slow here
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="*",
        help="run files; a warning says where one forces the slow precision",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the facts, then warnings, problems and the verdict; return 1 if there are problems."""
    needed = requirements()
    problems = [reason for text in needed.base if (reason := unmet(text))]
    facts: dict[str, Any] = {
        "basereward": {"version": __version__, "directory": os.path.dirname(os.path.dirname(__file__))},
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in map(_name, needed.base)},
        "extras": _extras(needed),
        "cores": _cores(),
        "memory": _memory(),
        "compilers": {name: _compiler(name) for name in (os.environ.get("CXX", "c++"), "nvcc")},
        "cuda": _cuda(problems),
        "matrix products": _products(),
        "kernels": _kernels(problems),
        "plugins": _plugins(problems),
        "environment": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(VARIABLES)},
    }
    warnings = [*_warnings(args.runs), *_slow_kernels(facts["kernels"])]
    missing = [name for name, state in facts["extras"].items() if state != INSTALLED]
    verdict = _verdict(problems, warnings, missing)
    if args.json:
        print(
            json.dumps(
                {**facts, "warnings": warnings, "problems": problems, "verdict": verdict},
                indent=2,
                default=str,
            )
        )
    else:
        print("\n".join(_lines(facts)))
        print()
        faults = [f"warning: {warning}" for warning in warnings]
        faults += [f"problem: {problem}" for problem in problems]
        for line in [*faults, verdict]:
            print(textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False))
    return int(bool(problems))


def _verdict(problems: list[str], warnings: list[str], missing: list[str]) -> str:
    """Return the last line: whether all works here, how well, and what could be added."""
    if problems:
        return f"does not work as it should: {len(problems)} problem{'s' * (len(problems) > 1)}"
    state = "works, but more slowly than it could: see the warnings" if warnings else "works"
    return f"{state}; not installed: {', '.join(missing)}" if missing else f"{state}, with every extra"


def _name(requirement: str) -> str:
    """Return the package of a requirement."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _extras(needed: Requirements) -> dict[str, str]:
    """Return for each extra that a command may need whether its packages are there, and how to add them."""
    states = {}
    for extra in needed.extras:
        texts = needed.packages(extra)
        if extra in DEVELOPMENT or extra == "all" or not texts:
            continue
        reasons = [reason for text in texts if (reason := unmet(text))]
        added = f"{'; '.join(reasons)}: {needed.install_command(extra)}"
        states[extra] = added if reasons else INSTALLED
    return states


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cores() -> dict[str, Any]:
    return {"usable": num_cores(), "all": os.cpu_count()}


def _memory() -> dict[str, str]:
    """Return the machine's memory, what is available of it, and the container's limit, as far as known."""
    sizes = {}
    if MEMORY.exists():
        for line in MEMORY.read_text().splitlines():
            name, _, size = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                sizes[name.removeprefix("Mem").lower()] = int(size.split()[0]) * 1024
    limit = CONTAINER_MEMORY.read_text().strip() if CONTAINER_MEMORY.exists() else "max"
    if limit.isdecimal():
        sizes["container"] = int(limit)
    return {name: f"{size / 2**30:.1f} GiB" for name, size in sizes.items()}


def _compiler(name: str) -> str | None:
    """Return the line of `--version` that has the version; nvcc's is its fourth."""
    path = shutil.which(name.split()[0])
    if path is None:
        return None
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    lines = done.stdout.splitlines()
    return next((line for line in lines if "release" in line), lines[0] if lines else "says nothing")


def _cuda(problems: list[str]) -> dict[str, Any] | str:
    try:
        import torch
    except Exception as error:  # a broken torch is what this command is there to report
        problems.append(f"torch can't be imported: {error}")
        return "unknown"
    if not torch.cuda.is_available():
        return f"none (torch is built {f'for {torch.version.cuda}' if torch.version.cuda else 'without it'})"
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "version": torch.version.cuda,
        "bf16": torch.cuda.is_bf16_supported(),
        "devices": [
            f"{device.name}, {device.total_memory / 2**30:.0f} GiB, capability {device.major}.{device.minor}"
            for device in devices
        ],
    }


def _products() -> dict[str, str]:
    """Return the speeds of matrix products on this machine, and what `precision = "auto"` makes of them."""
    try:
        import torch

        from basereward.hardware.precision import device_of
        from basereward.hardware.processor import bf16_support, product_flops
    except Exception:  # reported by `_cuda`
        return {}
    device = device_of()
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    speeds = {name: product_flops(dtype, device) for name, dtype in dtypes.items()}
    support = bf16_support(device)
    return {
        "device": str(device),
        **{name: f"{speed / 1e9:,.3g} GFLOP/s" for name, speed in speeds.items()},
        "auto": f"{'bf16' if support.is_fast else 'fp32'}: {support.reason}",
    }


def _warnings(runs: Sequence[str]) -> list[str]:
    """Return what makes matrix products slower than they could be: run files, and the environment."""
    from basereward.config.files import load_run

    settings = {path: load_run(path).train for path in runs}
    try:
        from basereward.hardware.precision import device_of, training_precision
        from basereward.hardware.processor import bf16_support, cpu_flags
    except Exception:  # reported by `_cuda`
        return []
    warnings = []
    for path, train in settings.items():
        if warning := training_precision(train.precision, device_of(train.device), 0).warning:
            warnings.append(f"{path}: {warning}")
    device = device_of()
    support = bf16_support(device)
    has_bf16 = not cpu_flags().isdisjoint({"amx_bf16", "avx512_bf16"})
    if device.type == "cpu" and has_bf16 and not support.is_fast:
        warnings.append(f"{support.reason}, which the processor has; unset it to train several times as fast")
    return warnings


def _slow_kernels(kernels: dict[str, Any] | str) -> list[str]:
    """Return which native libraries are missing, unless the environment asks for the plain ops."""
    if isinstance(kernels, str) or os.environ.get("BASEREWARD_KERNELS") == "torch":
        return []
    import torch

    wanted = ["cpu", "host", *(["cuda"] if torch.cuda.is_available() else [])]
    warnings = [
        f"the {TITLES[place]} are not in use: {kernels[place]['reason']}"
        for place in wanted
        if kernels[place]["kernels"] != "cpp"
    ]
    if NVIDIA_DRIVER.exists() and torch.version.cuda is None:
        warnings.append(f"there is an NVIDIA GPU, but torch {torch.__version__} is built without CUDA")
    return warnings


def _kernels(problems: list[str]) -> dict[str, Any] | str:
    try:
        from basereward import ops

        return ops.status()
    except Exception as error:  # as above
        problems.append(f"the native ops can't be imported: {error}")
        return "unknown"


def _plugins(problems: list[str]) -> dict[str, str]:
    plugins = manager().plugins
    problems += [f"plugin {item.name!r} did not load: {item.error}" for item in plugins if item.cause]
    return {item.name: item.error or item.version or "loaded" for item in plugins}


def _lines(facts: dict[str, Any], depth: int = 0) -> list[str]:
    lines = []
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        indent = "  " * depth
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}", *_lines(value, depth + 1)]
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else value
            begin = f"{indent}{name:<{width}}  "
            lines += textwrap.wrap(
                "-" if text in (None, "", {}) else str(text),
                width=WIDTH,
                initial_indent=begin,
                subsequent_indent=" " * len(begin),
                break_long_words=False,
                break_on_hyphens=False,
            )
    return lines
