"""Finding, importing and checking plugins, so that a broken one affects no other."""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pluggy

from basereward import hookspecs
from basereward._version import __version__
from basereward.config.conversion import did_you_mean
from basereward.errors import BaseRewardError, PluginError
from basereward.hookspecs import KINDS, PROJECT

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

DISABLE = "BASEREWARD_DISABLE_PLUGINS"
NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
TARGET = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith(f"{PROJECT}_"))


class PluginWarning(UserWarning):
    """A plugin doesn't work; everything else does."""


@dataclass(slots=True)
class Plugin:
    """One plugin, loaded or not.

    Attributes:
        name: The entry point's name, or the module's.
        version: Of its distribution, or the module's `__version__`.
        distribution: What to `pip install`; empty for a local module.
        target: Where its hooks are.
        components: For each kind, names and their classes, or "module:Class".
        hooks: The names of the hooks it implements.
        error: Why it did not load.
        cause: The exception behind `error`, if there was one.
        is_disabled: Whether it was left out because the user asked for that.
        directory: The working directory when the module was named; empty if the plugin was not named so.
    """

    name: str
    version: str
    distribution: str
    target: str
    components: dict[str, dict[str, str | type]] = field(default_factory=dict)
    hooks: list[str] = field(default_factory=list)
    error: str | None = None
    cause: BaseException | None = None
    is_disabled: bool = False
    directory: str = ""

    @contextmanager
    def on_path(self) -> Iterator[None]:
        """Let the modules in the plugin's directory be imported until the block ends.

        A console script does not have the working directory on its path, where a user's own modules lie. Left
        there, its files could take the places of optional dependencies that are not installed.
        """
        if not self.directory or self.directory in sys.path:
            yield
            return
        sys.path.append(self.directory)
        try:
            yield
        finally:
            sys.path.remove(self.directory)


class Registry:
    """Plugins in the order in which they were found, the built-in one first.

    The error of a plugin that can't be used is recorded on its `Plugin` and warned about once.
    """

    def __init__(self) -> None:
        self.plugins: list[Plugin] = []
        self._host = pluggy.PluginManager(PROJECT)
        self._host.add_hookspecs(hookspecs)
        self._modules: set[str] = set()
        builtin = f"{PROJECT}.plugins.builtin"
        self._add(Plugin(PROJECT, __version__, PROJECT, builtin), functools.partial(_imported, builtin))

    def add_installed(self) -> None:
        """Add the plugins of installed distributions, in the order of their names."""
        from importlib.metadata import entry_points  # costs 30 ms

        for point in sorted(entry_points(group=PROJECT), key=lambda point: (point.name, point.value)):
            self._add_entry_point(point)

    def add_modules(self, modules: Sequence[str | types.ModuleType]) -> None:
        """Add plugins that are modules or names of modules; those that were added before stay as they are."""
        for module in modules:
            name = module if isinstance(module, str) else module.__name__
            if name in self._modules:
                continue
            self._modules.add(name)
            plugin = Plugin(name, "", "", name, directory=os.getcwd() if name is module else "")
            self._add(plugin, functools.partial(_imported, module))
            if any(plugin.name == name and plugin.is_disabled for plugin in self.plugins):
                warn(f"plugin {name!r} was asked for, but {DISABLE} leaves it out")

    def call(self, plugin: Plugin, hook: str, arguments: Mapping[str, Any]) -> list[Any]:
        """Call one plugin's hook, and no other's."""
        implementation = self._host.get_plugin(plugin.name)
        others = [other for other in self._host.get_plugins() if other is not implementation]
        with plugin.on_path():
            results: list[Any] = self._host.subset_hook_caller(hook, remove_plugins=others)(**arguments)
        return results

    def _add_entry_point(self, point: EntryPoint) -> None:
        plugin = Plugin(point.name, "", "", point.value)

        def load() -> object:
            if not NAME.fullmatch(point.name):
                raise PluginError(_bad_name("plugin", point.name))
            return point.load()

        self._add(plugin, load, point.dist)

    def _add(
        self, plugin: Plugin, load: Callable[[], object], distribution: Distribution | None = None
    ) -> None:
        taken = next((other for other in self.plugins if other.name == plugin.name), None)
        self.plugins.append(plugin)
        disabled = {name.strip() for name in os.environ.get(DISABLE, "").split(",")}
        if disabled & {plugin.name, "*"} and plugin.name != PROJECT:
            plugin.is_disabled = True
            plugin.error = f"disabled by {DISABLE}"
            return
        implementation: object = None
        try:
            if distribution:  # read here, where broken metadata is this plugin's failure alone
                plugin.distribution, plugin.version = distribution.name, distribution.version
                _check_requirements(distribution)
            if taken:
                raise PluginError(f"the name is taken by the plugin in {taken.target}")
            with plugin.on_path():
                implementation = load()
            if self._host.is_registered(implementation):
                if not plugin.distribution:  # `-p` of an installed plugin's module: it is there already
                    self.plugins.remove(plugin)
                    return
                other = self._host.get_name(implementation)
                raise PluginError(f"{plugin.target} is plugin {other!r} already")
            self._host.register(implementation, plugin.name)
            self._read(plugin, implementation)
            return
        except (Exception, SystemExit) as error:
            if implementation is not None and self._host.get_plugin(plugin.name) is implementation:
                self._host.unregister(implementation)
            plugin.components = {}
            plugin.cause = error
            plugin.error = reason(error)
        # Outside the `try`: under `python -W error` a broken plugin has to end the program.
        warn(f"plugin {plugin.name!r} did not load: {plugin.error}")

    def _read(self, plugin: Plugin, implementation: object) -> None:
        """Fill in the version, hooks and components of a registered plugin."""
        self._check_marks(implementation)
        plugin.version = plugin.version or str(getattr(implementation, "__version__", ""))
        plugin.hooks = self._hooks(implementation)
        for kind, hook in KINDS.items():
            if hook in plugin.hooks:
                plugin.components[kind] = _components(kind, hook, self.call(plugin, hook, {}))

    def _check_marks(self, implementation: object) -> None:
        """Raise PluginError when a function is named like a hook but not marked, which pluggy passes over."""
        for name, value in vars(implementation).items():
            is_named_so = name.startswith(f"{PROJECT}_") and isinstance(value, types.FunctionType)
            if is_named_so and self._host.parse_hookimpl_opts(implementation, name) is None:
                raise PluginError(f"function {name!r} is not marked @hookimpl")

    def _hooks(self, implementation: object) -> list[str]:
        """Return the hooks that a registered plugin implements.

        Raises:
            PluginError: When there are none, or one is misspelt, which pluggy registers without a word.
        """
        hooks = []
        for caller in self._host.get_hookcallers(implementation) or ():
            implementations = [item for item in caller.get_hookimpls() if item.plugin is implementation]
            if caller.has_spec():
                hooks.append(caller.name)
            elif not all(item.optionalhook for item in implementations):
                hint = did_you_mean(caller.name, HOOKS) or ";"
                raise PluginError(f"unknown hook {caller.name!r}{hint} hooks: {', '.join(HOOKS)}")
        if not hooks:
            raise PluginError("no function in it is marked @hookimpl")
        return sorted(hooks, key=HOOKS.index)


def load_class(target: str, subject: str) -> type:
    """Return the class that "module:Class" names.

    Raises:
        PluginError: When the module can't be imported, or has no such class.
    """
    failed = f"{subject} ({target}) failed to load"
    module, _, path = target.partition(":")
    try:
        component: Any = importlib.import_module(module)
        for attribute in path.split("."):
            component = getattr(component, attribute)
    except (Exception, SystemExit) as error:
        raise PluginError(f"{failed}: {reason(error)}") from error
    if not isinstance(component, type):
        raise PluginError(f"{failed}: it is a {type(component).__name__}, not a class")
    return component


def reason(error: BaseException) -> str:
    """Return an exception in one line, for a plugin's `error`."""
    text = " ".join(str(error).split())
    return text if isinstance(error, BaseRewardError) else f"{type(error).__name__}: {text}".rstrip(": ")


def warn(text: str) -> None:
    """Warn of a plugin."""
    warnings.warn(text, PluginWarning, stacklevel=3)


def _imported(module: str | types.ModuleType) -> types.ModuleType:
    return importlib.import_module(module) if isinstance(module, str) else module


def _components(kind: str, hook: str, results: list[Any]) -> dict[str, str | type]:
    """Return one plugin's checked answer to a registration hook; pluggy leaves None out of the results."""
    result = results[0] if results else None
    if not isinstance(result, Mapping):
        raise PluginError(
            f"{hook} returned {type(result).__name__}, not a mapping of names to 'module:Class'"
        )
    for name, target in result.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise PluginError(_bad_name(kind, name))
        if not isinstance(target, type) and not (isinstance(target, str) and TARGET.fullmatch(target)):
            raise PluginError(f"{kind} {name!r} is registered as {target!r}; write 'module:Class'")
    return dict(result)


def _check_requirements(distribution: Distribution) -> None:
    """Raise PluginError when a distribution's own metadata says that it isn't for this version."""
    for text in distribution.requires or ():
        if not re.match(rf"{PROJECT}(?![\w.-])", text, re.IGNORECASE):
            continue
        if _is_met_plainly(text):
            continue
        from packaging.requirements import Requirement  # costs 16 ms of the 150 that `--help` may take

        requirement = Requirement(text)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and not requirement.specifier.contains(__version__, prereleases=True):
            raise PluginError(f"needs {PROJECT}{requirement.specifier}, this is {__version__}")


def _is_met_plainly(requirement: str) -> bool:
    """Tell whether a requirement is one of the two that nearly every plugin has, and is met.

    That is "basereward<0.2,>=0.1" around this version, and "basereward[test]; extra == ...", which asks
    nothing of those who don't want the extra. Numbers are easily compared; of all else packaging knows more.
    """
    if re.fullmatch(rf'{PROJECT}(?:\[[\w,-]+\])?; ?extra == ["\'][\w-]+["\']', requirement):
        return True
    bound = r"(>=|<)(\d+(?:\.\d+)*)"
    is_plain = re.fullmatch(rf"{PROJECT}{bound}(?:,{bound})*", requirement)
    if not is_plain or not re.fullmatch(r"[\d.]+", __version__):
        return False
    here = _release(__version__)
    bounds = re.findall(bound, requirement)
    return all(here >= _release(at) if sign == ">=" else here < _release(at) for sign, at in bounds)


def _release(version: str) -> list[int]:
    """Return the numbers of a version; 0.1 and 0.1.0 have the same."""
    return [int(part) for part in re.sub(r"(\.0+)+$", "", version).split(".")]


def _bad_name(what: str, name: object) -> str:
    return (
        f"bad {what} name {name!r}; names are lower-case words joined by '-' or '.', such as 'bradley-terry'"
    )
