"""A small vision-language reward model on real images and real ratings, made of packages alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from basereward.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping


@hookimpl
def basereward_backbones() -> Mapping[str, str]:
    """Provide the small vision-language model."""
    return {"mini-vlm": "basereward_mini.backbone:MiniVLM"}


@hookimpl
def basereward_datasets() -> Mapping[str, str]:
    """Provide images with their names, and texts with their human ratings."""
    return {
        "openmoji-captions": "basereward_mini.openmoji:OpenMojiCaptions",
        "human-ratings": "basereward_mini.human_ratings:HumanRatings",
    }


@hookimpl
def basereward_commands(subparsers: Any) -> None:
    """Add the commands `demo` and `human-ratings`."""
    from basereward_mini import commands

    commands.add_parsers(subparsers)
