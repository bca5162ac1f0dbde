"""Install each distribution of plugins/ into an environment of its own, and run its tests there.

Run as `python plugins/install_and_test.py [NAME ...]`, or `make test-plugins`. BaseReward is built into a
wheel once. Each environment has that wheel, the distribution, and all other packages of this Python but
BaseReward and its plugins. The tests run on a copy of the distribution without its packages, so that what is
imported is what was installed. Nothing is fetched: a test that needs a package that isn't there skips itself.

Prints a line for each distribution, and exits with 1 where one could not be installed or a test failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))

from environments import BUILT, PIP, Environment, copy_sources  # noqa: E402

SUMMARY = re.compile(r"^=*\s*(\d+ \w+(?:, \d+ \w+)*) in [\d.]+s", re.MULTILINE)

# What the environment has to hold: BaseReward and this plugin, from its own packages, and no other plugin.
LOOK = """
import sys
from importlib.metadata import entry_points
from pathlib import Path
import basereward
print(Path(basereward.__file__).is_relative_to(sys.prefix))
print(*sorted({entry.dist.name for entry in entry_points(group="basereward")}))
"""


class Broken(Exception):
    """A distribution that failed to install or to pass, with its output."""


@dataclass(frozen=True)
class Outcome:
    """The result of one distribution.

    Attributes:
        name: The distribution's.
        result: How many tests passed, failed and were skipped; or what went wrong before them.
        seconds: For installing and testing it.
        output: What was printed, where it failed; empty where it did not.
    """

    name: str
    result: str
    seconds: float
    output: str = ""


def wheel_of_basereward(directory: Path) -> Path:
    """Build BaseReward's wheel from a copy of its sources.

    Raises:
        Broken: When it can't be built.
    """
    sources = copy_sources(directory / "basereward")
    command = [sys.executable, "-m", "pip", "wheel", *PIP, "-w", str(directory), str(sources)]
    require(subprocess.run(command, capture_output=True, text=True, check=False), "the wheel was not built")
    (wheel,) = directory.glob("*.whl")
    return wheel


def outcome_of(source: Path, wheel: Path, directory: Path) -> Outcome:
    """Install a distribution into an environment of its own, and run its tests."""
    start = time.perf_counter()
    directory.mkdir()
    try:
        result, output = test(source, wheel, directory), ""
    except Broken as error:
        result, output = str(error.args[0]), str(error.args[1])
    shutil.rmtree(directory)
    return Outcome(source.name, result, time.perf_counter() - start, output)


def test(source: Path, wheel: Path, directory: Path) -> str:
    """Return pytest's summary of a distribution that is installed beside BaseReward's wheel alone.

    Raises:
        Broken: When it can't be installed, or a test fails.
    """
    copy = shutil.copytree(source, directory / source.name, ignore=BUILT)
    environment = Environment.make_without_basereward(directory / "venv")
    # One after the other: what is built has to see BaseReward.
    for built in (wheel, copy):
        require(environment.run("pip", "install", str(built)), "not installed")
    # No package of the copy may stand in for what was installed.
    for package in copy.glob("*/__init__.py"):
        shutil.rmtree(package.parent)
    seen = require(environment.run("python", "-P", "-c", LOOK), "not seen by Python").stdout.splitlines()
    if seen != ["True", source.name]:
        raise Broken(f"not alone with BaseReward's wheel: {' '.join(seen)}", "")
    # What takes minutes is left out as it is where a distribution is tested from the repository.
    done = environment.run("pytest", "-q", "--color=no", "--tb=short", "-m", "not slow", "tests", cwd=copy)
    found = SUMMARY.findall(done.stdout) or ["no tests ran"]
    require(done, found[-1])
    return str(found[-1])


def require(done: subprocess.CompletedProcess[str], what: str) -> subprocess.CompletedProcess[str]:
    """Return what has ended well, and raise `Broken` with all that it printed otherwise."""
    if done.returncode:
        raise Broken(what, done.stdout + done.stderr)
    return done


def main() -> int:
    """Test those that are named, or all; return 1 where one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a folder of plugins/; without any, all")
    parser.add_argument("--directory", type=Path, default=HERE, help="where the folders are")
    arguments = parser.parse_args()
    found = {path.parent.name: path.parent for path in sorted(arguments.directory.glob("*/pyproject.toml"))}
    if unknown := [name for name in arguments.names if name not in found]:
        parser.error(f"there is no {unknown[0]} in {arguments.directory}; there are: {', '.join(found)}")
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="basereward-plugins-") as temporary:
        place = Path(temporary)
        start = time.perf_counter()
        wheel = wheel_of_basereward(place)
        print(f"{wheel.name} built in {time.perf_counter() - start:.1f} s", flush=True)
        names = arguments.names or list(found)
        places = [place / str(number) for number in range(len(names))]
        # One for each core, since each environment computes on one thread.
        with ThreadPoolExecutor(min(os.cpu_count() or 1, len(names))) as pool:
            tests = pool.map(outcome_of, [found[name] for name in names], repeat(wheel), places)
            for name, outcome in zip(names, tests, strict=True):
                print(f"{outcome.output}{name:28} {outcome.result:32} {outcome.seconds:6.1f} s", flush=True)
                outcomes.append(outcome)
    return int(any(outcome.output for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
