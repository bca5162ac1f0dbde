"""`basereward plugins`: list the plugins, their status and their components."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from typing import Any

from basereward._version import __version__
from basereward.cli.command import WIDTH, Command
from basereward.errors import PluginError
from basereward.hookspecs import KINDS
from basereward.plugins.loading import Plugin
from basereward.plugins.options import component_options
from basereward.plugins.plugin_manager import PluginManager, manager

COMMAND = Command(
    description="List plugins and the backbones, heads, losses, ... that they provide.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--check", action="store_true", help="import everything; exit status 1 if anything fails"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List the plugins; return 1 if they are to be checked and one of them fails."""
    plugins = manager()
    entries = [_entry(plugins, plugin, check=args.check) for plugin in plugins.plugins]
    failed = [entry for entry in entries if entry["status"] == "failed"]
    broken = [item for entry in entries for item in entry["components"] if item["error"]]
    if args.json:
        print(json.dumps({"basereward": __version__, "plugins": entries}, indent=2))
    else:
        print("\n".join(line for entry in entries for line in _lines(entry, entries)))
        if args.check:
            num_components = sum(len(entry["components"]) for entry in entries)
            print(
                f"\nplugins: {len(entries)} checked, {len(failed)} failed; "
                f"components: {num_components} checked, {len(broken)} failed"
            )
    return int(args.check and bool(failed or broken))


def _entry(plugins: PluginManager, plugin: Plugin, *, check: bool) -> dict[str, Any]:
    status = "disabled" if plugin.is_disabled else "failed" if plugin.error else "loaded"
    if check and plugin.cause is not None:
        _print_trace(plugin.cause)
    return {
        "name": plugin.name,
        "version": plugin.version,
        "distribution": plugin.distribution,
        "target": plugin.target,
        "status": status,
        "error": plugin.error,
        "hooks": plugin.hooks,
        "components": [
            {
                "kind": item.kind,
                "name": item.name,
                "target": item.target,
                "error": _error(plugins, item.kind, f"{plugin.name}/{item.name}") if check else None,
            }
            for item in plugins.provided()
            if item.plugin == plugin.name and plugin.error is None
        ],
    }


def _error(plugins: PluginManager, kind: str, name: str) -> str | None:
    """Return why a component can't be used, if it can't."""
    try:
        component_options(plugins.load(kind, name))
    except PluginError as error:
        _print_trace(error)
        return str(error)
    return None


def _print_trace(error: BaseException) -> None:
    # The listing has the last line only; who mends a plugin needs to know where.
    print("".join(traceback.format_exception(error)), file=sys.stderr)


def _lines(entry: dict[str, Any], entries: list[dict[str, Any]]) -> list[str]:
    status = {"loaded": "loaded", "disabled": entry["error"], "failed": f"did not load: {entry['error']}"}
    lines = [f"{entry['name']} {entry['version']}".rstrip() + f": {status[entry['status']]}"]
    everywhere = [(item["kind"], item["name"]) for other in entries for item in other["components"]]
    width = max((len(item["name"]) for item in entry["components"]), default=0)
    for item in entry["components"]:
        line = f"  {item['kind']:<9}  {item['name']:<{width}}  {item['target']}"
        if len(line) > WIDTH:
            line = f"  {item['kind']:<9}  {item['name']}\n    {item['target']}"
        if everywhere.count((item["kind"], item["name"])) > 1:
            line += f"  (several plugins have it: write {entry['name']}/{item['name']})"
        lines += [line, *([f"    {item['error']}"] if item["error"] else [])]
    events = [hook for hook in entry["hooks"] if hook not in KINDS.values()]
    return lines + [f"  event      {hook}" for hook in events]
