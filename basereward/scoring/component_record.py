"""The components of a model as they are given, and as a model directory names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basereward.config.conversion import Component, ComponentLike, component_of
from basereward.errors import ModelError, PluginError
from basereward.plugins.options import resolved_options
from basereward.plugins.plugin_manager import PluginManager


def chosen_components(
    backbone: ComponentLike,
    head: ComponentLike | None,
    loss: ComponentLike | None,
    paradigm: ComponentLike | None,
) -> dict[str, Component]:
    """Return the component of each kind; what is left out is the paper's choice."""
    chosen = {
        "backbone": backbone,
        "head": head or "mlp",
        "loss": loss or "bradley-terry",
        "paradigm": paradigm or "scalar",
    }
    return {kind: component_of(component, kind) for kind, component in chosen.items()}


def describe(plugins: PluginManager, kind: str, component: Component) -> dict[str, Any]:
    """Return what a model directory says of a component: its name, its plugin, and all options."""
    provided = plugins.find(kind, component.name)
    return {
        "name": provided.name,
        "plugin": provided.plugin,
        "version": provided.version,
        "distribution": provided.distribution,
        "options": resolved_options(plugins.load(kind, component.name), component.options),
    }


def saved_component(plugins: PluginManager, kind: str, entry: Mapping[str, Any]) -> Component:
    """Return a saved component under its plugin's name too, since another plugin may have taken its own.

    Raises:
        ModelError: Saying which package to install, where the component's plugin is missing.
    """
    name = f"{entry['plugin']}/{entry['name']}"
    try:
        plugins.find(kind, name)
    except PluginError as error:
        package = entry.get("distribution")
        remedy = f"install {package}=={entry['version']}" if package else f"load it with -p; {error}"
        raise ModelError(
            f"the model's {kind} is {entry['name']!r} of plugin {entry['plugin']!r} {entry['version']}, "
            f"which is not there; {remedy}"
        ) from error
    return Component(name, dict(entry["options"]))
