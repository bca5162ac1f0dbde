"""Throw-away environments: a Python that sees what is installed beside the tests, and takes more."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import basereward

PIP = ("--disable-pip-version-check", "--no-build-isolation", "--no-deps", "--no-index", "--quiet")
"""Nothing is fetched: all that is needed is there already."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own.

    Args:
        directory: Where it is.
    """

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> Environment:
        """Make one beside this process's packages, with the commands pip, pytest and basereward."""
        venv.create(directory, with_pip=False, symlinks=True)
        made = cls(directory)
        found = made.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
        # By `addsitedir` and not by a bare path, so that editable installs there are seen, too.
        lines = [f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"]
        lines.append(str(Path(basereward.__file__).parents[1]))
        (Path(found.stdout.strip()) / "beside.pth").write_text("\n".join(lines) + "\n")
        options = {"pip": " ".join(PIP), "pytest": "-p no:cacheprovider", "basereward": ""}
        for command, more in options.items():
            script = directory / "bin" / command
            script.write_text(f'#!/bin/sh\nexec "{directory}/bin/python" -m {command} "$@" {more}\n')
            script.chmod(0o755)
        return made

    def run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command as it would be typed there."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BASEREWARD_")}
        path = os.pathsep.join([str(self.directory / "bin"), clean["PATH"]])
        environment = {**clean, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
