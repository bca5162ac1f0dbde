"""Giving a component's class the defaults of its contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from basereward.errors import PluginError
from basereward.hookspecs import KINDS
from basereward.protocols.components import Benchmark, Dataset, Ensembler, Writer
from basereward.protocols.models import Backbone, Head, Loss, Paradigm

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTRACTS: Final[Mapping[str, type]] = {
    "backbone": Backbone,
    "head": Head,
    "loss": Loss,
    "ensembler": Ensembler,
    "paradigm": Paradigm,
    "dataset": Dataset,
    "benchmark": Benchmark,
    "writer": Writer,
}
"""The contract of each kind in `basereward.hookspecs.KINDS`."""

FLAGS: Final = {"ensembler": ("learns", "fit"), "dataset": ("varies_by_epoch", "set_epoch")}
"""Members that are True where a class has a method of its own."""


def adopt(kind: str, cls: type, subject: str) -> None:
    """Give a component's class the defaults of its contract for the optional members that it lacks.

    Args:
        kind: Of the component.
        cls: Its class, which is changed.
        subject: What an error is about: "head 'x' of plugin 'p' (module:Class)".

    Raises:
        PluginError: When it lacks a required method.
    """
    contract = CONTRACTS[kind]
    missing = []
    for name, member in vars(contract).items():
        if getattr(member, "__isabstractmethod__", False):
            if not _is_defined(cls, name):
                missing.append(name)
        elif not name.startswith("_") and not hasattr(cls, name):
            setattr(cls, name, member)
    if missing:
        methods = "method" if len(missing) == 1 else "methods"
        raise PluginError(
            f"{subject} has no {methods} {', '.join(missing)}; see basereward.hookspecs.{KINDS[kind]}"
        )
    if kind in FLAGS:
        flag, method = FLAGS[kind]
        if getattr(cls, method) is not getattr(contract, method):
            setattr(cls, flag, True)


def _is_defined(cls: type, name: str) -> bool:
    """Tell whether a class has a method; that of `nn.Module`'s `forward` which only raises is none."""
    # Not by `getattr`, which finds a metaclass's `__call__` on any class.
    member = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
    is_unimplemented = getattr(member, "__name__", "") == "_forward_unimplemented"
    return member is not None and not is_unimplemented and not getattr(member, "__isabstractmethod__", False)
