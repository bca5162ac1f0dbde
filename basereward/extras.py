"""The packages that BaseReward and each of its extras need, and the commands that install them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PROJECT: Final = "basereward"

DEVELOPMENT: Final = frozenset({"test", "dev"})
"""Extras that no command needs."""


@dataclass(frozen=True)
class Requirements:
    """The requirements of a distribution, as its metadata or its pyproject.toml has them.

    Attributes:
        base: What is always installed, such as `torch>=2.10`.
        extras: What each extra adds.
        is_released: Whether the distribution came from an index, so that pip finds it by its name.
    """

    base: tuple[str, ...]
    extras: dict[str, tuple[str, ...]]
    is_released: bool

    def install_command(self, extra: str) -> str:
        """Return the command that installs an extra.

        It names the packages themselves where BaseReward is a checkout or was built from one: an index may
        have no BaseReward, or another.
        """
        if self.is_released:
            return f"pip install '{PROJECT}[{extra}]'"
        return "pip install " + " ".join(shlex.quote(package) for package in self.packages(extra))

    def packages(self, extra: str) -> list[str]:
        """Return the requirements of an extra, those of the extras that it names included."""
        packages: dict[str, None] = {}
        for text in self.extras[extra]:
            name, _, rest = text.partition("[")
            if name == PROJECT:
                for other in re.findall(r"[\w-]+", rest):
                    packages |= dict.fromkeys(self.packages(other))
            else:
                packages[text] = None
        return list(packages)


def requirements(package: Path = Path(__file__).parent) -> Requirements:
    """Return the requirements of the BaseReward that runs.

    Args:
        package: The package's directory; a pyproject.toml beside it is newer than the metadata of an install.
    """
    import tomllib

    project_file = package.parent / "pyproject.toml"
    if project_file.is_file():
        project = tomllib.loads(project_file.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == PROJECT:
            extras = {name: tuple(texts) for name, texts in project["optional-dependencies"].items()}
            return Requirements(tuple(project["dependencies"]), extras, is_released=False)
    return _installed()


def install_command(extra: str) -> str:
    """Return the command that installs an extra of the BaseReward that runs."""
    return requirements().install_command(extra)


def unmet(text: str) -> str | None:
    """Return what is wrong with a requirement here, such as `torch is 2.9.1, not >=2.10`; None if it is met.

    Args:
        text: Such as `torch>=2.10`, without a marker that doesn't apply here.
    """
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement

    requirement = Requirement(text)
    try:
        here = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(here, prereleases=True):
        return None
    return f"{requirement.name} is {here}, not {requirement.specifier}"


def _installed() -> Requirements:
    """Return the requirements that the metadata of the installed distribution has; none without metadata."""
    from importlib.metadata import PackageNotFoundError, distribution

    from packaging.requirements import Requirement

    try:
        metadata = distribution(PROJECT)
    except PackageNotFoundError:
        return Requirements((), {}, is_released=True)
    parsed = [Requirement(text) for text in metadata.requires or ()]
    names = metadata.metadata.get_all("Provides-Extra") or []
    extras = {name: tuple(_bare(item) for item in parsed if _is_of(item, name)) for name in names}
    base = tuple(_bare(item) for item in parsed if _is_of(item, ""))
    # Written by pip for what came from a directory, a file or a repository, and not from an index.
    return Requirements(base, extras, is_released=metadata.read_text("direct_url.json") is None)


def _is_of(requirement: Requirement, extra: str) -> bool:
    """Tell whether a requirement belongs to an extra alone; to the base, if it is the empty name."""
    marker = requirement.marker
    if marker is None:
        return extra == ""
    return marker.evaluate({"extra": extra}) and (extra == "" or not marker.evaluate({"extra": ""}))


def _bare(requirement: Requirement) -> str:
    """Return a requirement without its marker."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"
