"""docs/native-plugins.md: its code is the example's, and what it tells to type works without a checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from environments import BUILT, PIP, ROOT, Environment, copy_sources

from basereward.extension import include_dir

TEXT = (ROOT / "docs/native-plugins.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "plugins" / "basereward-example-op"
SNIPPETS = re.findall(r"^```(?:python|cpp)\n(?:#|//) (\S+)\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_every_block_of_code_is_in_the_file_that_it_names() -> None:
    assert len(SNIPPETS) == len(re.findall(r"^```(?:python|cpp)$", TEXT, re.MULTILINE))
    for name, code in SNIPPETS:
        assert code in (EXAMPLE / name).read_text(encoding="utf-8"), name


def test_every_header_of_the_text_is_there_and_every_header_is_in_the_text() -> None:
    rows = re.findall(r"^\| (`<basereward/.*?) \|", TEXT, re.MULTILINE)
    named = set()
    for row in rows:
        folder = ""
        for header in re.findall(r"`(.*?)`", row):
            # A bare name lies beside the header before it.
            path = header.strip("<>") if header.startswith("<") else f"{folder}/{header}"
            folder = path.rpartition("/")[0]
            named.add(path)
    there = {path.relative_to(include_dir()).as_posix() for path in include_dir().rglob("*.*h")}
    assert named == there


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_example_builds_against_an_installed_wheel_and_its_tests_pass(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", *PIP, "-w", tmp_path, copy_sources(tmp_path / "sources")]
    subprocess.run([str(word) for word in command], check=True)
    shutil.rmtree(tmp_path / "sources")
    environment = Environment.make_without_basereward(tmp_path / "venv")
    (wheel,) = tmp_path.glob("*.whl")
    assert environment.run("pip", "install", str(wheel)).returncode == 0
    shutil.copytree(EXAMPLE, tmp_path / "plugins" / EXAMPLE.name, ignore=BUILT)
    (block,) = re.findall(r"^```bash\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
    printed = []
    for line in block.splitlines():
        done = environment.run("bash", "-c", line, cwd=tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        printed.append(done.stdout)
    _, reason, tests = printed
    if shutil.which("c++"):
        assert reason == "BASEREWARD_KERNELS=auto, and basereward_example_op._C is there\n"
    assert " passed" in tests.splitlines()[-1]


def planted(directory: Path, name: str, test: str) -> None:
    """Write a distribution with a plugin that adds nothing, and one test."""
    package = name.replace("-", "_")
    (directory / name / package).mkdir(parents=True)
    (directory / name / package / "__init__.py").touch()
    (directory / name / "tests").mkdir()
    (directory / name / "tests" / "test_it.py").write_text(test)
    (directory / name / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "1"\n'
        f'[project.entry-points.basereward]\n{name} = "{package}"\n'
        f'[tool.setuptools]\npackages = ["{package}"]\n'
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_distribution_is_tested_alone_and_a_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BASEREWARD_BUILD_EXT", "0")
    alone = "import sys, basereward_good as own\ndef test_it(): assert own.__file__.startswith(sys.prefix)\n"
    planted(tmp_path, "basereward-good", alone)
    planted(tmp_path, "basereward-wrong", "def test_it(): import basereward_good\n")
    planted(tmp_path, "basereward-without", "")
    planted(tmp_path, "basereward-broken", alone)
    (tmp_path / "basereward-broken" / "setup.py").write_text("raise SystemExit('no compiler')\n")
    command = [sys.executable, str(ROOT / "plugins" / "install_and_test.py"), "--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    lines = re.findall(r"^(basereward-[a-z]+) +(.*?) +[\d.]+ s$", done.stdout, re.MULTILINE)
    assert lines == [
        ("basereward-broken", "not installed"),
        ("basereward-good", "1 passed"),
        ("basereward-without", "no tests ran"),
        ("basereward-wrong", "1 failed"),
    ]
    assert "no compiler" in done.stdout
    assert "ModuleNotFoundError: No module named 'basereward_good'" in done.stdout
    unknown = subprocess.run([*command, "basereward-godo"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
    assert unknown.stderr.splitlines()[-1].endswith(
        f"there is no basereward-godo in {tmp_path}; there are: basereward-broken, basereward-good, "
        "basereward-without, basereward-wrong"
    )
