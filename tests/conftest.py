"""Fixtures that many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# A first call that imports, or a busy machine, is no failure of what is tested.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def one_thread_without_bars() -> None:
    """Compute on one thread, a second one costing tiny models more than it brings; draw no bars."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()


@pytest.fixture(scope="session", autouse=True)
def without_waiting_for_the_disk() -> Iterator[None]:
    """Leave out `fsync`, which on a busy disk takes longer than the training of a tiny model: no test cuts
    the power. That files are synced before they are renamed is tested where `fsync` is replaced again.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(params=["small trees whole", "small trees split", "all in two calls"], scope="module")
def each_way_of_attending(request: pytest.FixtureRequest) -> Iterator[None]:
    """Attend within small trees in one block with a mask, in blocks as within large ones, then as on a GPU
    with an emulated kernel.
    """
    from emulated_flash import EmulatedFlash

    with pytest.MonkeyPatch.context() as patch:
        if request.param.endswith("split"):
            patch.setattr("basereward.forest.layout.HIDDEN_PAIRS_A_CALL", 0)
        if request.param.endswith("calls"):
            for module in ("basereward.forest.attention", "basereward.backbones.vision_attention"):
                patch.setattr(f"{module}.packed_kernel", lambda query: EmulatedFlash)
        yield


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return directories of tiny random models by architecture."""
    import tiny

    root = tmp_path_factory.mktemp("models")
    models = {kind: tiny.save_qwen_vl(root / kind, kind) for kind in tiny.VL_KINDS}
    models |= {kind: tiny.save_internvl(root / kind, kind) for kind in tiny.INTERNVL_KINDS}
    return models | {kind: tiny.save_causal_lm(root / kind, kind) for kind in tiny.LM_KINDS}
