"""Plugins, their components by kind and name, and the options of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward import _exports

if TYPE_CHECKING:
    from basereward.plugins.loading import Plugin as Plugin
    from basereward.plugins.loading import PluginWarning as PluginWarning
    from basereward.plugins.options import Option as Option
    from basereward.plugins.options import component_options as component_options
    from basereward.plugins.options import resolved_options as resolved_options
    from basereward.plugins.plugin_manager import PluginManager as PluginManager
    from basereward.plugins.plugin_manager import Provided as Provided
    from basereward.plugins.plugin_manager import manager as manager

__getattr__, __dir__, __all__ = _exports.lazy(
    __name__,
    {
        "loading": ("Plugin", "PluginWarning"),
        "options": ("Option", "component_options", "resolved_options"),
        "plugin_manager": ("PluginManager", "Provided", "manager"),
    },
)
