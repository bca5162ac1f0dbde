"""The conformance kit: the checks of a plugin's components, as a list and as a pytest decorator."""

from __future__ import annotations

import re
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest

from basereward.config.conversion import did_you_mean
from basereward.errors import PluginError
from basereward.hookspecs import KINDS
from basereward.plugins.loading import Plugin, PluginWarning
from basereward.plugins.plugin_manager import PluginManager
from basereward.testing import (
    backbones,
    benchmarks,
    components,
    datasets,
    ensemblers,
    heads,
    hooks,
    losses,
    paradigms,
    writers,
)
from basereward.testing.subject import Options, Subject

CHECKS: Final[Mapping[str, tuple[Callable[..., None], ...]]] = {
    "plugin": hooks.CHECKS,
    "backbone": (*components.SAVED_CHECKS, *backbones.CHECKS),
    "head": (*components.SAVED_CHECKS, *heads.CHECKS),
    "loss": (*components.SAVED_CHECKS, *losses.CHECKS),
    "ensembler": (*components.CHECKS, *ensemblers.CHECKS),
    "paradigm": (*components.SAVED_CHECKS, *paradigms.CHECKS),
    "dataset": (*components.CHECKS, *datasets.CHECKS),
    "benchmark": (*components.CHECKS, *benchmarks.CHECKS),
    "writer": (*components.CHECKS, *writers.CHECKS),
}
"""The checks of a plugin itself, and of each kind of component."""


BASIC: Final = frozenset(
    (
        components.is_wired_by_position,
        components.has_typed_options,
        backbones.is_a_backbone,
        backbones.has_its_width,
        heads.gives_one_reward_a_response,
        losses.gives_a_loss_output,
        ensemblers.gives_one_reward_a_response,
        paradigms.gives_one_fp32_reward_a_response,
        datasets.is_a_dataset,
        datasets.yields_comparisons,
        benchmarks.has_a_fixed_order,
        writers.writes_a_text_for_each_request,
    )
)
"""Checks without which those after them mean nothing: they are skipped where one of these fails."""


@dataclass(frozen=True, eq=False)
class Check:
    """One promise of one component; a call checks it.

    Attributes:
        id: `kind/name:check`, or `plugin:check`.
        subject: What is checked.
        function: How; its docstring is the promise.
    """

    id: str
    subject: Any
    function: Callable[[Any], None]

    def __call__(self) -> None:
        """Check.

        Raises:
            Failed: Naming the promise and what was observed.
        """
        try:
            self.function(self.subject)
        except Exception:
            # One fault is one failing check: the others would only say so in other words.
            if reason := self._earlier_failure():
                pytest.skip(reason)
            raise

    def _earlier_failure(self) -> str:
        """Return the failing check without which this one means nothing; empty where there is none."""
        if not isinstance(self.subject, Subject):
            return ""
        checks = CHECKS[self.subject.kind]
        if self.function is checks[0]:
            return ""
        try:
            _ = self.subject.cls
        except PluginError as error:
            return f"not checked, as the component can't be imported: {error}"
        for check in checks[: checks.index(self.function)]:
            if check in BASIC:
                try:
                    check(self.subject)
                except pytest.skip.Exception:
                    continue
                except Exception:
                    return f"not checked, as {name_of(check)} fails"
        return ""


def name_of(check: Callable[..., None]) -> str:
    """Return a check's name in ids."""
    return check.__name__.replace("_", "-")


def checks(
    plugin: str | types.ModuleType,
    *,
    options: Mapping[str, Options] | None = None,
    heads: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return every check of a plugin.

    Args:
        plugin: An installed plugin's name, or its distribution's; or a module with hooks.
        options: By `kind/name`, the options that make a component small enough to be tested: a table, or a
            function of an empty directory that writes what the component reads and returns the table.
        heads: By `paradigm/name`, the head of a paradigm that goes with no other.

    Raises:
        PluginError: When there is no such plugin, it did not load, or it has no such component.
    """
    options, heads = dict(options or {}), dict(heads or {})
    plugins, record = _plugin(plugin)
    if record.error is not None:
        raise PluginError(f"plugin {record.name!r} did not load: {record.error}")
    result = [Check(f"plugin:{name_of(check)}", record, check) for check in CHECKS["plugin"]]
    names = [f"{kind}/{name}" for kind in KINDS for name in record.components.get(kind, {})]
    _require_known(options, names, "options", f"components of {record.name}")
    with_heads = [name for name in names if name.startswith("paradigm/")]
    _require_known(heads, with_heads, "heads", f"paradigms of {record.name}")
    for name in names:
        kind, _, short = name.partition("/")
        given = (options.get(name, {}), heads.get(name, "mlp"))
        subject = Subject(plugins, kind, f"{record.name}/{short}", *given)
        result += [Check(f"{name}:{name_of(check)}", subject, check) for check in CHECKS[kind]]
    return result


def conformance(
    plugin: str | types.ModuleType,
    *,
    options: Mapping[str, Options] | None = None,
    heads: Mapping[str, str] | None = None,
    xfail: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """Parametrize a test function with every check of a plugin, each under an id of its own.

    Args:
        plugin: An installed plugin's name, or its distribution's; or a module with hooks.
        options: By `kind/name`, the options that make a component small enough to be tested: a table, or a
            function of an empty directory that writes what the component reads and returns the table.
        heads: By `paradigm/name`, the head of a paradigm that goes with no other.
        xfail: By id, such as `loss/x:has-the-right-gradient`, why a check is known to fail. It has to: one
            that passes is a failure.

    Raises:
        PluginError: When there is no such plugin, it did not load, or it has no such component or check.
    """
    all_checks = checks(plugin, options=options, heads=heads)
    reasons = dict(xfail or {})
    _require_known(reasons, [check.id for check in all_checks], "xfail", "checks")
    parameters = []
    for check in all_checks:
        reason = reasons.get(check.id)
        marks = () if reason is None else (pytest.mark.xfail(reason=reason, strict=True),)
        parameters.append(pytest.param(check, id=check.id, marks=marks))
    return pytest.mark.parametrize("check", parameters)


def _plugin(plugin: str | types.ModuleType) -> tuple[PluginManager, Plugin]:
    with warnings.catch_warnings():
        # Faults of other plugins are not this one's.
        warnings.simplefilter("ignore", PluginWarning)
        if isinstance(plugin, types.ModuleType):
            plugins = PluginManager([plugin])
            return plugins, plugins.plugins[-1]
        plugins = PluginManager(discover=True)
    wanted = _normal(plugin)
    for candidate in plugins.plugins:
        if wanted in (candidate.name, _normal(candidate.distribution)):
            return plugins, candidate
    names = ", ".join(candidate.name for candidate in plugins.plugins)
    raise PluginError(
        f"no plugin {plugin!r} is installed; plugins: {names}; pass the module itself of one that isn't"
    )


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _require_known(given: Iterable[str], ids: list[str], argument: str, what: str) -> None:
    for name in given:
        if name not in ids:
            hint = did_you_mean(name, ids) or ";"
            listed = ", ".join(ids) if len(ids) < 20 else f"{len(ids)}, as pytest --collect-only lists"
            raise PluginError(f"{argument} names {name!r}, which is not there{hint} {what}: {listed}")
