"""`basereward new-plugin`: what it writes is whole, and the example in plugins/ is just that."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest
from environments import Environment

from basereward.cli import main
from basereward.cli.new_plugin import ALWAYS, CHOICES, OF_PART, PARTS, files, write
from basereward.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "plugins" / "basereward-example"
MADE = ("__pycache__", ".egg-info", "build", "runs", ".pytest_cache")


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="needs a source checkout")
def test_the_example_is_what_the_template_gives() -> None:
    held = {
        path.relative_to(EXAMPLE).as_posix(): path.read_bytes()
        for path in EXAMPLE.rglob("*")
        if path.is_file() and not any(part.endswith(MADE) for part in path.relative_to(EXAMPLE).parts)
    }
    assert held == {path: text.encode() for path, text in files("example", PARTS).items()}


def test_every_template_is_used() -> None:
    templates = {
        path.name.removesuffix(".in")
        for path in (resources.files("basereward") / "plugin_template").iterdir()
    }
    assert templates == {*ALWAYS, *(name for names in OF_PART.values() for name in names)}


@pytest.mark.parametrize("part", CHOICES)
def test_a_distribution_of_one_part_is_clean_and_says_nothing_of_others(tmp_path: Path, part: str) -> None:
    directory = write("big-idea", [part], tmp_path)
    assert directory == tmp_path / "basereward-big-idea"
    texts = {path: path.read_text() for path in directory.rglob("*") if path.is_file()}
    for path, text in texts.items():
        assert not re.search(r"@(NAME|PACKAGE|RANGE|if|end)", text), path
        if path.suffix == ".py":
            ast.parse(text)
        elif path.suffix == ".toml":
            tomllib.loads(text)
        elif path.suffix == ".jsonl":
            assert [json.loads(line) for line in text.splitlines()]
    module = ast.parse(texts[directory / "basereward_big_idea" / "__init__.py"])
    hooks = [item.name for item in module.body if isinstance(item, ast.FunctionDef)]
    plural = {"loss": "losses", "log": "log", "op": "heads"}.get(part, f"{part}s")
    assert hooks == [f"basereward_{plural}"]
    others = {name for other in CHOICES if other != part for name in OF_PART[other]}
    assert others.isdisjoint(path.name for path in texts)
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "F,E,W",
        "--line-length",
        "110",
    ]
    done = subprocess.run([*command, str(directory)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_was_written_and_what_comes_next_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new-plugin", "mine", "--with", "loss", "--with", "head", "--into", str(tmp_path)]) == 0
    place = tmp_path / "basereward-mine"
    assert capsys.readouterr().out == (
        f"wrote {place}; from here on:\n  cd {place}\n  pip install -e '.[test]'\n  pytest\n"
        "  basereward train run.toml\n"
    )
    assert {path.name for path in (place / "basereward_mine").iterdir()} == {
        "__init__.py",
        "heads.py",
        "losses.py",
    }


def test_a_version_range_of_this_version_is_written() -> None:
    project = tomllib.loads(files("mine", ["loss"])["pyproject.toml"])["project"]
    assert project["dependencies"] == ["basereward>=0.1,<0.2"]
    assert project["entry-points"] == {"basereward": {"mine": "basereward_mine"}}


@pytest.mark.parametrize("name", ["Mine", "my_loss", "-mine", "2nd", "basereward-mine", ""])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as error:
        write(name, PARTS, tmp_path)
    assert str(error.value) == (
        f"a plugin can't be called {name!r}; names are lower-case words joined by '-', such as "
        "'focal-losses', and its distribution becomes basereward-NAME by itself"
    )
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    write("mine", ["loss"], tmp_path)
    with pytest.raises(ConfigError) as error:
        write("mine", ["head"], tmp_path)
    assert str(error.value) == (
        f"{tmp_path}/basereward-mine is there already; choose another name, or another place with --into"
    )


@pytest.mark.external
@pytest.mark.timeout(1200)
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize(
    "parts", [pytest.param(["op"], marks=pytest.mark.slow), ["op", "head", "loss"]], ids="-".join
)
def test_an_op_is_built_and_its_tests_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], parts: list[str]
) -> None:
    named = [word for part in parts for word in ("--with", part)]
    assert main(["new-plugin", "fast", *named, "--into", str(tmp_path)]) == 0
    place = tmp_path / "basereward-fast"
    _, _, install, test, train = capsys.readouterr().out.splitlines()
    assert install == "  pip install --no-build-isolation -e '.[test]'"
    environment = Environment.make(tmp_path / "venv")
    for line in (install, test, train):
        done = environment.run("bash", "-c", line, cwd=place)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert [path.name for path in (place / "basereward_fast").glob("*.so")] == ["_C.abi3.so"]
    script = "from basereward_fast.ops import library; print(library.status()['cpu']['kernels'])"
    assert environment.run("python", "-c", script).stdout == "cpp\n"
