"""The processor's instructions, and how fast it multiplies matrices in fp32 and bf16."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

X86 = ("x86_64", "amd64")
ARM = ("aarch64", "arm64")
CPU_INFO = Path("/proc/cpuinfo")

FLAGS = ("amx_bf16", "avx512_bf16", "avx512_f", "avx_ne_convert", "avx2", "bf16", "sve")
"""The features that speeds and names depend on, as torch calls them."""

WITHOUT_BF16 = ("sse41", "avx", "avx2", "avx2_vnni", "avx512_core", "avx512_core_vnni")
"""Values of ONEDNN_MAX_CPU_ISA that leave oneDNN no instruction for bf16."""

CAPPED_ATEN = ("default", "avx2")
"""Values of ATEN_CPU_CAPABILITY below AVX-512, of processors without bf16 instructions."""

FASTER = 1.5
"""How many times as fast a timed product in bf16 must be: casts and all that is no product gain nothing."""

PROBE = (64, 256, 256)
"""Sizes of a timed product: 8.4 MFLOP, which take 10 ms where bf16 is emulated at 0.8 GFLOP/s."""


@dataclass(frozen=True)
class Bf16Support:
    """Whether a device multiplies bf16 matrices faster than fp32 ones.

    Args:
        is_fast: Whether it does.
        reason: How that is known, the same in every process on the same machine.
    """

    is_fast: bool
    reason: str


def bf16_support(device: torch.device) -> Bf16Support:
    """Return whether bf16 products are fast on a device: by its features, else by one timed product."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Bf16Support(True, "the GPU has bf16 tensor cores")
        return Bf16Support(False, "the GPU has no bf16 tensor cores")
    support = None
    if device.type == "cpu" and torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled:
        support = by_flags(cpu_flags(), platform.machine(), platform.system(), os.environ)
    if support is not None:
        return support
    if _multiplies_bf16_faster(str(device)):
        return Bf16Support(True, "a timed product was faster in bf16")
    return Bf16Support(False, "a timed product was no faster in bf16")


def by_flags(
    flags: frozenset[str], machine: str, system: str, environ: Mapping[str, str]
) -> Bf16Support | None:
    """Return what a processor's features say of its speed in bf16 through oneDNN; None where they don't tell.

    Args:
        flags: Those of `FLAGS` that it has.
        machine: As `platform.machine()` has it.
        system: As `platform.system()` has it.
        environ: The environment, whose ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY switch features off.
    """
    if machine.lower() in X86 and flags:
        return _by_x86_flags(flags, environ)
    # On macOS torch multiplies without oneDNN.
    if machine.lower() in ARM and system == "Linux" and flags:
        if "bf16" in flags:
            return Bf16Support(True, "the processor has bf16 instructions")
        return Bf16Support(False, "the processor has no bf16 instructions")
    return None


def _by_x86_flags(flags: frozenset[str], environ: Mapping[str, str]) -> Bf16Support | None:
    for variable in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        limit = environ.get(variable, "").lower()
        if limit in WITHOUT_BF16:
            return Bf16Support(False, f"{variable}={environ[variable]} switches bf16 instructions off")
        if limit == "avx2_vnni_2":
            return None
    if (value := environ.get("ATEN_CPU_CAPABILITY", "")).lower() in CAPPED_ATEN:
        return Bf16Support(False, f"ATEN_CPU_CAPABILITY={value} switches bf16 instructions off")
    for name in ("amx_bf16", "avx512_bf16"):
        if name in flags:
            return Bf16Support(True, f"the processor has {name}")
    if "avx_ne_convert" in flags:
        return None
    return Bf16Support(False, "the processor has no bf16 instructions")


@cache
def cpu_flags() -> frozenset[str]:
    """Return those of `FLAGS` that the processor has; none where that can't be found out."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    flags = {name for name in FLAGS if capabilities.get(name)}
    return frozenset(flags) if capabilities else flags_of(CPU_INFO)


def flags_of(path: Path) -> frozenset[str]:
    """Return those of `FLAGS` that Linux lists of the first processor in /proc/cpuinfo."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    titles = ("flags", "Features")
    listed = next((line for line in lines if line.split(":")[0].strip() in titles), "")
    # Linux writes avx512f where torch has avx512_f.
    names = {"avx512f": "avx512_f"}
    return frozenset(names.get(word, word) for word in listed.partition(":")[2].split()) & frozenset(FLAGS)


@cache
def _multiplies_bf16_faster(device: str) -> bool:
    fp32, bf16 = (
        _seconds(PROBE, dtype, torch.device(device), num_runs=3) for dtype in (torch.float32, torch.bfloat16)
    )
    return fp32 > FASTER * bf16


def product_flops(
    dtype: torch.dtype, device: torch.device, *, seconds: float = 0.2, largest: int | None = None
) -> float:
    """Return the FLOPs a second of a product of square matrices, the larger the faster the device is.

    Args:
        dtype: Of the matrices.
        device: Where they are.
        seconds: About how long it may take.
        largest: The largest size; None for 2048 on a CPU and 8192 elsewhere.
    """
    size = 128
    largest = largest or (2048 if device.type == "cpu" else 8192)
    took = _seconds((size, size, size), dtype, device)
    while size < largest and 8 * took * 4 < seconds:
        size *= 2
        took = _seconds((size, size, size), dtype, device)
    num_runs = max(1, min(20, int(seconds / max(took, 1e-9) / 2)))
    took = min(took, _seconds((size, size, size), dtype, device, num_runs=num_runs))
    return 2 * size**3 / took


def _seconds(
    sizes: tuple[int, int, int], dtype: torch.dtype, device: torch.device, *, num_runs: int = 1
) -> float:
    """Return the shortest time of a product [m, k] x [k, n] of several, after one that is not counted."""
    m, k, n = sizes
    left, right = (torch.ones(shape, dtype=dtype, device=device) for shape in ((m, k), (n, k)))
    times = []
    with torch.inference_mode():
        for _ in range(num_runs + 1):
            began = time.perf_counter()
            product = torch.nn.functional.linear(left, right)
            product[0, 0].item()  # waits for the device
            times.append(time.perf_counter() - began)
    return min(times[1:])


def machine_name() -> str:
    """Return a short name for the features that speeds depend on, such as `avx2` or `avx512-bf16`.

    Where the environment switches some of them off, the name ends with `-emulated`.
    """
    if torch.cuda.is_available():
        words = torch.cuda.get_device_name().lower().replace("nvidia", "").split()
        return "-".join(words)
    flags, machine = cpu_flags(), platform.machine().lower()
    if machine in ARM:
        return "aarch64-bf16" if "bf16" in flags else "aarch64"
    if machine not in X86:
        return machine or "unknown"
    names = {
        "amx": "amx_bf16" in flags,
        "avx512-bf16": "avx512_bf16" in flags,
        "avx512": "avx512_f" in flags,
        "avx2": "avx2" in flags,
    }
    name = next((name for name, has in names.items() if has), "x86-64")
    limits = {os.environ.get(name, "").lower() for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")}
    return "avx2-emulated" if "avx512_f" in flags and limits == {"avx2"} else name
