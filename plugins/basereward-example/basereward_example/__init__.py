"""The hooks of basereward-example: names alone, so that `basereward --help` need not wait for torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from basereward import hookimpl

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from pathlib import Path


@hookimpl
def basereward_backbones() -> Mapping[str, str]:
    """Comparisons to hidden states."""
    return {"example-bag": "basereward_example.backbones:Bag"}


@hookimpl
def basereward_heads() -> Mapping[str, str]:
    """Hidden states to rewards."""
    return {"example-attentive": "basereward_example.heads:Attentive"}


@hookimpl
def basereward_losses() -> Mapping[str, str]:
    """Rewards to a loss."""
    return {"example-focal": "basereward_example.losses:Focal"}


@hookimpl
def basereward_ensemblers() -> Mapping[str, str]:
    """Rewards of several models to one."""
    return {"example-median": "basereward_example.ensemblers:Median"}


@hookimpl
def basereward_paradigms() -> Mapping[str, str]:
    """Backbone, head and loss put together."""
    return {"example-bounded": "basereward_example.paradigms:Bounded"}


@hookimpl
def basereward_datasets() -> Mapping[str, str]:
    """Files to comparisons."""
    return {"example-votes": "basereward_example.datasets:Votes"}


@hookimpl
def basereward_benchmarks() -> Mapping[str, str]:
    """Comparisons with an official metric."""
    return {"example-duels": "basereward_example.benchmarks:Duels"}


@hookimpl
def basereward_writers() -> Mapping[str, str]:
    """Requests to texts."""
    return {"example-canned": "basereward_example.writers:Canned"}


@hookimpl
def basereward_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `basereward example-lengths`."""
    from basereward_example import commands

    commands.add_parser(subparsers)


@hookimpl
def basereward_log(record: Mapping[str, Any], run_dir: Path) -> None:
    """Write the loss of each step to a table of one's own."""
    from basereward_example import logger

    logger.write(record, run_dir)
