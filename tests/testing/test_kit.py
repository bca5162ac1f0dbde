"""The decorator: one test a check, known failures with their reasons, and errors that say what is there."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
from broken_paradigms import Sound
from mutants import Mutant, check_of
from torch import nn

import basereward
from basereward import hookimpl
from basereward.backbones.base import Backbone
from basereward.errors import ConfigError, PluginError
from basereward.heads import Linear
from basereward.hookspecs import KINDS
from basereward.losses import BradleyTerry
from basereward.testing import checks, conformance, paradigms
from basereward.testing.kit import CHECKS


class Steep(BradleyTerry):
    """A loss that ignores ties."""


def plugin(name: str = "mine", **hooks: object) -> ModuleType:
    module = ModuleType(name)
    hooks = hooks or {"basereward_losses": lambda: {"steep": Steep}}
    for hook, function in hooks.items():
        setattr(module, hook, hookimpl(function))
    return module


def test_every_kind_has_checks_and_every_check_says_what_is_promised() -> None:
    assert set(CHECKS) == {"plugin", *KINDS}
    for of_kind in CHECKS.values():
        assert all(check.__doc__ for check in of_kind)
        assert len({check.__name__ for check in of_kind}) == len(of_kind)


def test_each_check_of_each_component_has_an_id_of_its_own() -> None:
    ids = [check.id for check in checks(plugin())]
    assert ids[0] == "plugin:imports-nothing-heavy"
    assert "loss/steep:is-finite-far-out" in ids
    assert len(ids) == 1 + len(CHECKS["loss"]) == len(set(ids))


def test_a_sound_paradigm_of_another_make_passes() -> None:
    for check in CHECKS["paradigm"]:
        check_of("paradigm", Mutant(check, Sound, ""))()
    assert paradigms.CHECKS


class NeedsLinear(Sound):
    """A paradigm that goes with one head alone."""

    def __init__(self, backbone: Backbone, head: nn.Module, loss: nn.Module) -> None:
        super().__init__(backbone, head, loss)
        if type(head) is not Linear:
            raise ConfigError(f"a linear head is needed, not {type(head).__name__}")


def test_a_paradigm_is_checked_with_the_head_that_is_named() -> None:
    module = plugin(basereward_paradigms=lambda: {"needs-linear": NeedsLinear})
    id = "paradigm/needs-linear:ignores-its-batch"
    [with_its_own] = [
        check for check in checks(module, heads={"paradigm/needs-linear": "linear"}) if check.id == id
    ]
    with_its_own()
    [without] = [check for check in checks(module) if check.id == id]
    with pytest.raises(ConfigError, match="a linear head is needed, not MLP"):
        without()


def test_a_plugin_is_found_by_its_name_and_by_its_distributions() -> None:
    assert len(checks("basereward")) == len(checks("BaseReward")) > 300


MESSAGES = {
    "unknown plugin": (
        lambda: checks("no-such-plugin"),
        "no plugin 'no-such-plugin' is installed; plugins: basereward",
    ),
    "unknown component": (
        lambda: checks(plugin(), options={"loss/stepe": {}}),
        "options names 'loss/stepe', which is not there; did you mean 'loss/steep'? components of mine: "
        "loss/steep",
    ),
    "unknown paradigm": (
        lambda: checks(plugin(), heads={"loss/steep": "linear"}),
        "heads names 'loss/steep', which is not there; paradigms of mine: ",
    ),
    "unknown check": (
        lambda: conformance(plugin(), xfail={"loss/steep:is-finite": "not yet"}),
        "xfail names 'loss/steep:is-finite', which is not there; did you mean "
        "'loss/steep:is-finite-far-out'? "
        "checks: plugin:imports-nothing-heavy, loss/steep:has-a-docstring, ",
    ),
    "broken plugin": (
        lambda: checks(plugin("bad", basereward_losses=lambda: 1 / 0)),
        "plugin 'bad' did not load: ZeroDivisionError: division by zero",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_not_there_is_an_error_that_says_what_is(name: str) -> None:
    call, message = MESSAGES[name]
    with pytest.raises(PluginError) as error:
        call()
    assert str(error.value).startswith(message)


SUITE = """
    from basereward import hookimpl
    from basereward.losses import BradleyTerry
    from basereward.testing import conformance

    class Negated(BradleyTerry):
        '''A loss that ignores ties, and prefers the worse response.'''

        def forward(self, rewards, targets):
            return super().forward(-rewards, targets)

    @hookimpl
    def basereward_losses():
        return {"negated": Negated}

    import sys

    @conformance(
        sys.modules[__name__],
        xfail={
            "loss/negated:prefers-the-better-response": "it prefers the worse one",
            "loss/negated:is-finite-far-out": "it is, so that this reason is wrong",
        },
    )
    def test_conformance(check):
        check()
    """


@pytest.mark.external
def test_a_known_failure_has_to_fail(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(textwrap.dedent(SUITE))
    known = "prefers-the-better-response or is-finite-far-out or never-rises or has-a-docstring"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA", "-k", known]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    found = re.findall(r"^([A-Z]+) \S+\[(loss/\S+)\]", done.stdout, re.MULTILINE)
    assert {name: outcome for outcome, name in found} == {
        "loss/negated:has-a-docstring": "PASSED",
        "loss/negated:prefers-the-better-response": "XFAIL",
        "loss/negated:never-rises-with-a-margin": "FAILED",
        "loss/negated:is-finite-far-out": "FAILED",
    }
    assert "[XPASS(strict)] it is, so that this reason is wrong" in done.stdout


def test_nothing_but_the_kit_imports_pytest() -> None:
    package = Path(basereward.__file__).parent
    imports = re.compile(r"^\s*(?:import|from) pytest", re.MULTILINE)
    files = [file for file in package.rglob("*.py") if imports.search(file.read_text(encoding="utf-8"))]
    assert {file.parent for file in files} == {package / "testing"}


class Wordy(BradleyTerry):
    """A loss that ignores ties."""

    def forward(self, rewards, targets):  # type: ignore[no-untyped-def, override]
        return "low"


class Untyped(BradleyTerry):
    """A loss that ignores ties."""

    def __init__(self, *, strength=1.0) -> None:  # type: ignore[no-untyped-def]
        super().__init__()


class Matrix(Linear):
    """A head of another shape."""

    def forward(self, hidden, forest):  # type: ignore[no-untyped-def, override]
        return super().forward(hidden, forest).unsqueeze(1)


@pytest.mark.parametrize(
    ("kind", "component", "check"),
    [
        ("loss", Wordy, "gives-a-loss-output"),
        ("loss", Untyped, "has-typed-options"),
        ("loss", "mine.nowhere:Loss", "has-a-docstring"),
        ("head", Matrix, "gives-one-reward-a-response"),
    ],
)
def test_one_fault_is_one_failing_check(kind: str, component: type | str, check: str) -> None:
    failed = []
    for item in checks(plugin("mine", **{KINDS[kind]: lambda: {"x": component}})):
        if item.id.startswith("plugin:"):  # a module in memory can't be imported by another process
            continue
        try:
            item()
        except pytest.skip.Exception:
            continue
        except Exception:
            failed.append(item.id)
    assert failed == [f"{kind}/x:{check}"]
