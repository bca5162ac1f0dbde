"""Peak FLOPs, memory and bandwidth of accelerators, by their makers' data sheets."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Accelerator:
    """One kind of GPU.

    Args:
        title: Its name.
        memory_gb: Memory in GB of 1e9 bytes, as its maker counts.
        bf16_tflops: Peak of dense bf16 products that add up in fp32; data sheets often print twice as much,
            for matrices of which half the elements are zero.
        fp32_tflops: Peak of fp32, without tensor cores.
        link_gb_s: Bandwidth from other GPUs of the machine, GB a second: half of the data sheets' number,
            which adds up both directions.
        device_names: The names that CUDA gives it.
    """

    title: str
    memory_gb: float
    bf16_tflops: float
    fp32_tflops: float
    link_gb_s: float
    device_names: tuple[str, ...]


ACCELERATORS = {
    "a100-40": Accelerator("A100 SXM 40 GB", 40, 312, 19.5, 300, ("NVIDIA A100-SXM4-40GB",)),
    "a100-80": Accelerator("A100 SXM 80 GB", 80, 312, 19.5, 300, ("NVIDIA A100-SXM4-80GB",)),
    "h100": Accelerator("H100 SXM", 80, 989.4, 67, 450, ("NVIDIA H100 80GB HBM3",)),
    "h200": Accelerator("H200 SXM", 141, 989.4, 67, 450, ("NVIDIA H200",)),
    "b200": Accelerator("B200 SXM", 180, 2250, 75, 900, ("NVIDIA B200",)),
    "l40s": Accelerator("L40S", 48, 362, 91.6, 32, ("NVIDIA L40S",)),
    "rtx4090": Accelerator("GeForce RTX 4090", 24, 165.2, 82.6, 32, ("NVIDIA GeForce RTX 4090",)),
}


def peak_flops(device: torch.device, *, bf16: bool) -> float | None:
    """Return the peak of a device in FLOPs a second; None where that isn't known, as of every CPU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    for accelerator in ACCELERATORS.values():
        if name in accelerator.device_names:
            return 1e12 * (accelerator.bf16_tflops if bf16 else accelerator.fp32_tflops)
    return None
