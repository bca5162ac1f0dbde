"""Print how many packages this Python's environment has, and how many megabytes, the largest by name."""

from __future__ import annotations

import sysconfig
from importlib.metadata import Distribution, distributions
from pathlib import Path

LARGEST = 6


def size_of(distribution: Distribution) -> int:
    """Return the bytes of a distribution's files."""
    paths = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> None:
    """Print one line."""
    site = sysconfig.get_path("purelib")
    sizes = {item.metadata["Name"]: size_of(item) for item in distributions(path=[site])}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
    named = ", ".join(f"{name} {sizes[name] / 1e6:,.0f}" for name in largest)
    print(f"== {len(sizes)} packages, {sum(sizes.values()) / 1e6:,.0f} MB ({named})")


if __name__ == "__main__":
    main()
