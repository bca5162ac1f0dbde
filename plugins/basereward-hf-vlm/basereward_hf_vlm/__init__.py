"""The hook of basereward-hf-vlm: a name alone, so that `basereward --help` need not wait for torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping


@hookimpl
def basereward_backbones() -> Mapping[str, str]:
    """Any image-text-to-text model of transformers."""
    return {"hf-vlm": "basereward_hf_vlm.backbone:HfVlm"}
