"""Whether a processor multiplies bf16 fast: by its features, or by a timed product."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from basereward.hardware import processor

CPU = torch.device("cpu")
NONE: dict[str, str] = {}
AMX = frozenset({"amx_bf16", "avx512_bf16", "avx512_f", "avx2"})
ZEN5 = frozenset({"avx512_bf16", "avx512_f", "avx2"})
SKYLAKE = frozenset({"avx512_f", "avx2"})
ZEN3 = frozenset({"avx2"})


@pytest.mark.parametrize(
    ("flags", "machine", "system", "environ", "is_fast"),
    [
        (AMX, "x86_64", "Linux", NONE, True),
        (ZEN5, "AMD64", "Windows", NONE, True),
        (SKYLAKE, "x86_64", "Linux", NONE, False),
        (ZEN3, "x86_64", "Linux", NONE, False),
        (ZEN3 | {"avx_ne_convert"}, "x86_64", "Linux", NONE, None),
        (AMX, "x86_64", "Linux", {"ONEDNN_MAX_CPU_ISA": "AVX2"}, False),
        (AMX, "x86_64", "Linux", {"ONEDNN_MAX_CPU_ISA": "avx512_core"}, False),
        (AMX, "x86_64", "Linux", {"DNNL_MAX_CPU_ISA": "AVX512_CORE_VNNI"}, False),
        (AMX, "x86_64", "Linux", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, True),
        (AMX, "x86_64", "Linux", {"ONEDNN_MAX_CPU_ISA": "AVX2_VNNI_2"}, None),
        (AMX, "x86_64", "Linux", {"ATEN_CPU_CAPABILITY": "avx2"}, False),
        (AMX, "x86_64", "Linux", {"ATEN_CPU_CAPABILITY": "avx512"}, True),
        (frozenset({"bf16", "sve"}), "aarch64", "Linux", NONE, True),
        (frozenset({"sve"}), "aarch64", "Linux", NONE, False),
        (frozenset({"bf16"}), "arm64", "Darwin", NONE, None),
        (frozenset(), "x86_64", "Linux", NONE, None),
        (frozenset(), "riscv64", "Linux", NONE, None),
    ],
)
def test_features_tell_or_leave_it_to_a_timed_product(
    flags: frozenset[str], machine: str, system: str, environ: dict[str, str], is_fast: bool | None
) -> None:
    support = processor.by_flags(flags, machine, system, environ)
    assert (None if support is None else support.is_fast) == is_fast
    if environ and is_fast is False:
        assert support is not None
        assert next(iter(environ.values())) in support.reason


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile", AMX),
        ("Features\t: fp asimd sve bf16 i8mm", {"sve", "bf16"}),
        ("model name : avx2", set()),
    ],
)
def test_flags_are_read_as_linux_lists_them(line: str, flags: set[str], tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n\nprocessor\t: 1\nflags: sse\n")
    assert processor.flags_of(tmp_path / "cpuinfo") == flags
    assert processor.flags_of(tmp_path / "none") == set()


@pytest.mark.parametrize(("bf16_seconds", "is_fast"), [(0.5, True), (0.9, False), (20.0, False)])
def test_a_product_is_timed_once_where_features_don_t_tell(
    bf16_seconds: float, is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[torch.dtype] = []

    def seconds(sizes: tuple[int, int, int], dtype: torch.dtype, *rest: object, **options: object) -> float:
        timed.append(dtype)
        return 1.0 if dtype == torch.float32 else bf16_seconds

    monkeypatch.setattr(processor, "by_flags", lambda *arguments: None)
    monkeypatch.setattr(processor, "_seconds", seconds)
    processor._multiplies_bf16_faster.cache_clear()
    try:
        supports = [processor.bf16_support(CPU) for _ in range(3)]
    finally:
        processor._multiplies_bf16_faster.cache_clear()
    assert [support.is_fast for support in supports] == [is_fast] * 3
    assert timed == [torch.float32, torch.bfloat16]
    # No figure, which would differ between two equal runs.
    assert not any(character.isdigit() for character in supports[0].reason.replace("bf16", ""))


def test_without_onednn_the_features_don_t_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "by_flags", lambda *arguments: processor.Bf16Support(True, "flags"))
    monkeypatch.setattr(processor, "_multiplies_bf16_faster", lambda device: False)
    assert processor.bf16_support(CPU).is_fast
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not processor.bf16_support(CPU).is_fast


def test_speeds_are_measured_within_about_the_time_given(monkeypatch: pytest.MonkeyPatch) -> None:
    # A device of 1 GFLOP/s: 128^3 takes 4 ms, 256^3 34 ms, and 512^3 would take 268.
    sizes: list[int] = []

    def seconds(size: tuple[int, int, int], *rest: object, num_runs: int = 1) -> float:
        sizes.append(size[0])
        return 2 * size[0] ** 3 / 1e9

    monkeypatch.setattr(processor, "_seconds", seconds)
    assert processor.product_flops(torch.float32, CPU, seconds=0.2) == pytest.approx(1e9)
    assert max(sizes) == 256


def test_this_machine_has_a_name_and_a_speed() -> None:
    assert processor.machine_name()
    assert processor.product_flops(torch.float32, CPU, seconds=0.01) > 0
