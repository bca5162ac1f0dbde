"""Plugins, and their components by name: the one way from a run file or a checkpoint to a class."""

from __future__ import annotations

import functools
import os
import types
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from basereward.config.conversion import Component, did_you_mean
from basereward.errors import ConfigError, PluginError
from basereward.hookspecs import KINDS, PROJECT
from basereward.plugins.loading import Plugin, PluginWarning, Registry, load_class, reason, warn
from basereward.plugins.options import Option, component_options, resolved_options
from basereward.protocols import adopt

__all__ = [
    "Component",
    "Option",
    "Plugin",
    "PluginManager",
    "PluginWarning",
    "Provided",
    "component_options",
    "manager",
    "resolved_options",
]

WITH_PATH = ("dataset", "benchmark")
"""Kinds whose constructor is wired with the `path` that a run file gives among the options."""


@dataclass(frozen=True, slots=True)
class Provided:
    """A component and its provider: the facts that a checkpoint records of it, besides its options."""

    kind: str
    name: str
    target: str
    plugin: str
    version: str
    distribution: str


@functools.cache
def _process_manager() -> PluginManager:
    return PluginManager(discover=True)


def manager(modules: Sequence[str] = ()) -> PluginManager:
    """Return this process's plugins: built-in, installed, and all modules that were ever named here."""
    plugins = _process_manager()
    plugins.add(modules)
    return plugins


_building: ContextVar[PluginManager | None] = ContextVar("building", default=None)


def current_manager() -> PluginManager:
    """Return the plugins by which a component is being built; this process's where none is.

    For components that look up other things of plugins, such as a judge template.
    """
    return _building.get() or manager()


class PluginManager:
    """A set of plugins.

    Nothing that a plugin does at import, at registration or in an event reaches the others: it is recorded on
    its `Plugin`, warned about once, and the rest works on.

    Args:
        modules: Modules to add, or their names.
        discover: Whether to add the installed distributions' plugins too.
    """

    def __init__(self, modules: Sequence[str | types.ModuleType] = (), *, discover: bool = False) -> None:
        self._registry = Registry()
        self._silenced: set[str] = set()
        if discover:
            self._registry.add_installed()
        self.add(modules)

    @property
    def plugins(self) -> list[Plugin]:
        """All plugins that were found, the built-in one first."""
        return self._registry.plugins

    @property
    def loaded(self) -> list[Plugin]:
        """The plugins that work."""
        return [plugin for plugin in self.plugins if plugin.error is None]

    def add(self, modules: Sequence[str | types.ModuleType]) -> None:
        """Add plugins that are modules or names of modules; those that were added before stay as they are."""
        self._registry.add_modules(modules)

    def provided(self, kind: str | None = None) -> list[Provided]:
        """Return the components of one kind, or all."""
        return [
            _provided(each, name, plugin)
            for each in KINDS
            if kind in (None, each)
            for plugin in self.loaded
            for name in plugin.components.get(each, {})
        ]

    def names(self, kind: str) -> list[str]:
        """Return the names of one kind as a run file writes them: `plugin/name` where plugins share one."""
        provided = self.provided(kind)
        shared = [item.name for item in provided]
        return sorted(
            item.name if shared.count(item.name) == 1 else f"{item.plugin}/{item.name}" for item in provided
        )

    def find(self, kind: str, name: str) -> Provided:
        """Return the component of a name, alone or as `plugin/name`, without importing it.

        Raises:
            PluginError: When no plugin provides it, or several do.
        """
        return _provided(kind, _short(name), self._provider(kind, name))

    def load(self, kind: str, name: str) -> type[Any]:
        """Return a component's class.

        Raises:
            PluginError: When the name is unknown or ambiguous, its module does not import, or the class lacks
            a method that its kind needs.
        """
        plugin = self._provider(kind, name)
        target = plugin.components[kind][_short(name)]
        if isinstance(target, type):
            adopt(kind, target, f"{kind} {_short(name)!r} of plugin {plugin.name!r} ({target.__qualname__})")
            return target
        subject = f"{kind} {_short(name)!r} of plugin {plugin.name!r}"
        with plugin.on_path():
            component = load_class(target, subject)
        adopt(kind, component, f"{subject} ({target})")
        return component

    def build(self, kind: str, component: Component, *wired: Any) -> Any:
        """Construct a component with the framework's arguments by position, and the user's options by name.

        Without wired arguments a dataset's or benchmark's `path` is taken from its options.

        Raises:
            PluginError: When it can't be found or loaded.
            ConfigError: When it has no such option, or an option's value is not allowed.
        """
        cls = self.load(kind, component.name)
        subject = f"{kind} {component.name!r}"
        given = dict(component.options)
        if kind in WITH_PATH and not wired:
            wired = _path(cls, subject, given)
        options = resolved_options(cls, given, subject)
        token = _building.set(self)
        try:
            return cls(*wired, **options)
        except ValueError as error:
            raise ConfigError(f"{subject}: {error}") from error
        finally:
            _building.reset(token)

    def resolve(self, kind: str, component: Component) -> Component:
        """Return a component with all of its options, checked, defaults included.

        Raises:
            PluginError: When it can't be found or loaded.
            ConfigError: When it has no such option, or an option's value is not allowed.
        """
        cls = self.load(kind, component.name)
        subject = f"{kind} {component.name!r}"
        given = dict(component.options)
        paths = _path(cls, subject, given) if kind in WITH_PATH else ()
        options = resolved_options(cls, given, subject)
        return Component(component.name, {"path": os.fspath(paths[0]), **options} if paths else options)

    def emit(self, event: str, **arguments: Any) -> None:
        """Call an event hook of every plugin; warn about one that fails, and send it no more events."""
        for plugin in self.loaded:
            if event not in plugin.hooks or plugin.name in self._silenced:
                continue
            failure = ""
            try:
                self._registry.call(plugin, event, arguments)
            except (Exception, SystemExit) as error:
                failure = reason(error)
            if failure:  # outside the `try`, since `python -W error` makes the warning an exception
                self._silenced.add(plugin.name)
                warn(f"plugin {plugin.name!r} failed in {event} and gets no more events: {failure}")

    def _provider(self, kind: str, name: str) -> Plugin:
        if kind not in KINDS:
            hint = did_you_mean(kind, KINDS) or ";"
            raise PluginError(f"unknown kind {kind!r}{hint} kinds: {', '.join(KINDS)}")
        owner, short = name.rpartition("/")[0], _short(name)
        providers = [
            plugin
            for plugin in self.loaded
            if short in plugin.components.get(kind, {}) and owner in ("", plugin.name)
        ]
        if len(providers) > 1:
            choices = " or ".join(f"{plugin.name}/{short}" for plugin in providers)
            raise PluginError(f"{kind} {short!r} is provided by several plugins; write {choices}")
        if not providers:
            raise PluginError(self._unknown(kind, name))
        return providers[0]

    def _unknown(self, kind: str, name: str) -> str:
        names = self.names(kind)
        hint = did_you_mean(name, names) or ";"
        plural = KINDS[kind].removeprefix(f"{PROJECT}_")
        text = f"unknown {kind} {name!r}{hint} {plural}: {', '.join(names) or 'none'}"
        broken = [f"{plugin.name} ({plugin.error})" for plugin in self.plugins if plugin.error is not None]
        return f"{text}; plugins that did not load: {', '.join(broken)}" if broken else text


def _provided(kind: str, name: str, plugin: Plugin) -> Provided:
    target = plugin.components[kind][name]
    text = target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"
    return Provided(kind, name, text, plugin.name, plugin.version, plugin.distribution)


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _path(cls: type, subject: str, given: dict[str, Any]) -> tuple[Any, ...]:
    """Take the path out of the options of a component that is wired with one."""
    import inspect

    parameter = next(iter(inspect.signature(cls).parameters.values()), None)
    if parameter is None or parameter.kind is parameter.KEYWORD_ONLY:
        return ()  # it reads no file, and a `path` among its options is unknown to it
    if "path" not in given:
        if parameter.default is parameter.empty:
            raise ConfigError(f"{subject} needs 'path'")
        return ()
    path = given.pop("path")
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"{subject}: path must be a string, not {path!r}")
    return (path,)
