"""Checks of a plugin's module of hooks."""

from __future__ import annotations

import os
import subprocess
import sys

from basereward.plugins.loading import Plugin
from basereward.testing.subject import require

HEAVY = ("PIL", "matplotlib", "numpy", "pyarrow", "torch", "transformers")

PROGRAM = """
import argparse, sys
from basereward.plugins import PluginManager
plugins = PluginManager([sys.argv[1]])
plugins.emit("basereward_commands", subparsers=argparse.ArgumentParser().add_subparsers())
print(*sorted(set(sys.argv[2:]) & set(sys.modules)))
"""


def imports_nothing_heavy(plugin: Plugin) -> None:
    """The hooks import neither torch nor any other heavy module, as `basereward --help` calls them."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-c", PROGRAM, plugin.target, *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    require(done.returncode == 0, f"{plugin.target} fails in a process of its own:\n{done.stderr}")
    heavy = done.stdout.strip()
    require(
        not heavy,
        f"{plugin.target} imports {heavy}; name classes as 'module:Class', whose modules may import it",
    )


CHECKS = (imports_nothing_heavy,)
