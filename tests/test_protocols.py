"""Contracts of components: optional members get defaults, a missing required one is refused."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from basereward import protocols
from basereward.errors import PluginError
from basereward.hookspecs import KINDS, hookimpl
from basereward.plugins import PluginManager


def manager_of(kind: str, cls: type) -> PluginManager:
    """Return a manager with one component `own` of a plugin `third`."""
    module: Any = types.ModuleType("third")
    setattr(module, KINDS[kind], hookimpl(lambda: {"own": cls}))
    return PluginManager([module])


def test_every_kind_has_a_contract() -> None:
    assert list(protocols.CONTRACTS) == list(KINDS)


def test_a_head_that_derives_from_nothing_of_ours_gets_the_defaults() -> None:
    class Foreign(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.reads = "ends"

        def forward(self, hidden: Tensor, forest: Any) -> Tensor:
            return hidden[0, forest.ends, 0]

    manager = manager_of("head", Foreign)
    head = manager.load("head", "own")(4)
    assert (head.reads, head.reads_layer) == ("ends", None)
    assert manager.load("head", "own") is Foreign  # a second time changes nothing


def test_a_default_that_is_computed_gives_way_to_an_attribute_of_the_instance() -> None:
    class Foreign(nn.Module):
        def __init__(self, *wired: Any) -> None:
            super().__init__()
            self.statistics = {"answers": 3}

        def prepare(self, comparison: Any) -> Any:
            return comparison

        def loss_of(self, batch: Any) -> Any:
            return None

        def score_of(self, batch: Any) -> Tensor:
            return torch.zeros(len(batch))

    paradigm = manager_of("paradigm", Foreign).load("paradigm", "own")()
    assert paradigm.statistics == {"answers": 3}
    assert paradigm.pads
    assert not paradigm.shares_prefix
    assert paradigm.score([1, 2]).tolist() == [0, 0]


def test_a_method_of_its_own_says_that_an_ensembler_learns_and_that_epochs_differ() -> None:
    class Learns:
        def __call__(self, members: Tensor, comparisons: Any) -> Tensor:
            return members[0]

        def fit(self, members: Tensor, comparisons: Any) -> None: ...

    class Turns:
        def __iter__(self) -> Any:
            return iter(["row"])

        def set_epoch(self, epoch: int) -> None: ...

    learns = manager_of("ensembler", Learns).load("ensembler", "own")
    assert learns.learns
    assert learns().route(None, [True, False]) == [True, True]
    turns = manager_of("dataset", Turns).load("dataset", "own")
    assert turns.varies_by_epoch
    assert list(turns().read()) == ["row"]
    assert not protocols.Ensembler.learns
    assert not protocols.Dataset.varies_by_epoch


class NoForward(nn.Module):
    """Has nn.Module's own `forward`, which only raises."""


class Nothing:
    """Has no method at all; `type` has a `__call__`."""


@pytest.mark.parametrize(
    ("kind", "cls", "message"),
    [
        ("head", NoForward, "head 'own' of plugin 'third' (NoForward) has no method forward"),
        ("ensembler", Nothing, "ensembler 'own' of plugin 'third' (Nothing) has no method __call__"),
        (
            "paradigm",
            Nothing,
            "paradigm 'own' of plugin 'third' (Nothing) has no methods prepare, loss_of, score_of",
        ),
    ],
)
def test_a_class_without_a_required_method_is_refused_by_its_name(kind: str, cls: type, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        manager_of(kind, cls).load(kind, "own")
    assert str(caught.value) == f"{message}; see basereward.hookspecs.{KINDS[kind]}"
