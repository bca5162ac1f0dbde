"""docs/plugins.md: what it tells to type works, and what it says of hooks and checks is so."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest
from environments import Environment

from basereward import hookspecs
from basereward.cli.new_plugin import PARTS
from basereward.testing import components
from basereward.testing.kit import CHECKS, name_of

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
PROMISE = re.compile(r"^\| (\w+) \| `([\w-]+)` \| (.+) \|$", re.MULTILINE)
HOOK = re.compile(r"^\| `(basereward_\w+)\((.*?)\)` \|", re.MULTILINE)


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[str]:
    """Return the lines of a block that run something, without comments."""
    return [line.partition(" #")[0].strip() for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment.make(tmp_path_factory.mktemp("environment") / "venv")


@pytest.mark.external
def test_the_newcomers_path_works(environment: Environment, tmp_path: Path) -> None:
    path, *_ = blocks("bash")
    place, printed = tmp_path, []
    for line in commands(path):
        if line.startswith("cd "):
            place /= line.removeprefix("cd ")
            continue
        done = environment.run("bash", "-c", line, cwd=place)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        printed.append(done.stdout)
    new, _, tests, shown, trained = printed
    assert new.startswith("wrote basereward-mine; from here on:\n")
    num = len(CHECKS["plugin"]) + len(CHECKS["loss"]) + 1
    assert f"{num} passed in " in tests or f"{num - 1} passed, 1 skipped in " in tests
    assert shown.startswith("loss mine-focal: Bradley-Terry that looks away from pairs")
    assert "held-out accuracy 1.0000" in trained
    listed = environment.run("basereward", "plugins", cwd=tmp_path).stdout
    assert "\nmine 0.1.0: loaded\n  loss       mine-focal  basereward_mine.losses:Focal\n" in listed


@pytest.mark.external
def test_the_module_of_the_text_works_and_passes(environment: Environment, tmp_path: Path) -> None:
    for block in blocks("python"):
        name = re.match(r"# (\S+\.py)\n", block)
        assert name, block
        path = tmp_path / name[1]
        path.parent.mkdir(exist_ok=True)
        path.write_text(block)
    done = environment.run("pytest", "-q", "-W", "error", "test_conformance.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    num = len(CHECKS["plugin"]) + len(CHECKS["ensembler"])
    assert done.stdout.splitlines()[-1].startswith(f"{num - 4} passed, 4 skipped")
    _, block = blocks("bash")
    for line in commands(block):
        done = environment.run("bash", "-c", line, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "ensembler worst-of: The lowest of the members' rewards: a conservative ensemble."
    )


def test_the_distribution_of_the_text_has_its_entry_point() -> None:
    (text,) = blocks("toml")
    project = tomllib.loads(text)["project"]
    assert project["entry-points"]["basereward"] == {"my-losses": "my_losses"}
    (requirement,) = project["dependencies"]
    assert requirement == "basereward>=0.1,<0.2"


def test_every_hook_is_there_with_its_signature() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("basereward_")]
    signatures = {name: ", ".join(inspect.signature(getattr(hookspecs, name)).parameters) for name in hooks}
    assert dict(HOOK.findall(TEXT)) == signatures
    assert len(hooks) == 10


def test_every_kind_is_made_as_the_table_says() -> None:
    rows = re.findall(r"^\| `(basereward_\w+)\(\)` \| .* \| `\((.*), \.\.\.\)` \|$", TEXT, re.MULTILINE)
    made = {hook: [word for word in wired.split(", ") if word not in ("*", "model")] for hook, wired in rows}
    assert made == {hook: list(components.WIRED[kind][0]) for kind, hook in hookspecs.KINDS.items()}


def test_every_check_of_the_kit_is_listed_with_its_promise() -> None:
    wanted = [
        (kind, name_of(check), (inspect.getdoc(check) or "").splitlines()[0].rstrip("."))
        for kind, of_kind in CHECKS.items()
        for check in of_kind
        if check not in components.SAVED_CHECKS
    ]
    assert PROMISE.findall(TEXT) == wanted


def test_every_part_that_can_be_asked_for_is_named() -> None:
    (sentence,) = re.findall(r"^`--with` takes .*", TEXT, re.MULTILINE)
    assert re.findall(r"`([a-z]+)`", sentence) == list(PARTS)
