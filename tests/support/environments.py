"""Throw-away environments: a Python that sees what is installed beside the tests, and takes more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import basereward

ROOT = Path(__file__).parents[2]
PIP = ("--disable-pip-version-check", "--no-build-isolation", "--no-deps", "--no-index", "--quiet")
"""Nothing is fetched: all that is needed is there already."""

BUILT = shutil.ignore_patterns(
    "__pycache__", "*.so", "_C*.json", "_host.json", "_build.json", "build", "*.egg-info"
)


def copy_sources(target: Path) -> Path:
    """Copy what BaseReward is built from, without what was built of it, and return where to."""
    for name in ("basereward", "csrc", "recipes"):
        shutil.copytree(ROOT / name, target / name, ignore=BUILT)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target)
    return target


LEFT_OUT = ("BASEREWARD_", "PYTEST_ADDOPTS")
"""Beginnings of the environment variables that a command in an environment doesn't get."""


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
        made = cls._with_commands(directory)
        # By `addsitedir` and not by a bare path, so that editable installs there are seen, too.
        lines = [f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"]
        lines.append(str(Path(basereward.__file__).parents[1]))
        (made.site / "beside.pth").write_text("\n".join(lines) + "\n")
        return made

    @classmethod
    def make_without_basereward(cls, directory: Path) -> Environment:
        """Make one that sees of this process's packages all but BaseReward and its plugins."""
        made = cls._with_commands(directory)
        beside = directory / "beside"
        beside.mkdir()
        for path in Path(sysconfig.get_path("purelib")).iterdir():
            if "basereward" not in path.name:
                (beside / path.name).symlink_to(path)
        # A bare path: of what lies there no .pth file runs, so that no editable install is seen.
        (made.site / "beside.pth").write_text(f"{beside}\n")
        return made

    @classmethod
    def _with_commands(cls, directory: Path) -> Environment:
        venv.create(directory, with_pip=False, symlinks=True)
        made = cls(directory)
        options = {"pip": " ".join(PIP), "pytest": "-p no:cacheprovider", "basereward": ""}
        for command, more in options.items():
            script = directory / "bin" / command
            script.write_text(f'#!/bin/sh\nexec "{directory}/bin/python" -m {command} "$@" {more}\n')
            script.chmod(0o755)
        return made

    @property
    def site(self) -> Path:
        """The directory of its own packages."""
        return Path(sysconfig.get_path("purelib", vars={"base": str(self.directory)}))

    def run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command as it would be typed there."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)}
        path = os.pathsep.join([str(self.directory / "bin"), clean["PATH"]])
        environment = {**clean, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
