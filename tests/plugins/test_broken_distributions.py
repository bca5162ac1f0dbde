"""When what is installed is wrong: each case of the table in docs/plugins.md, installed with pip."""

from __future__ import annotations

import json
import re
import textwrap
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from environments import Environment

from basereward import __version__
from basereward.hookspecs import KINDS

pytestmark = pytest.mark.external

HOOKS = ", ".join([*KINDS.values(), "basereward_commands", "basereward_log"])
HEADER = "from basereward import hookimpl\n"
PARTS = """
    class Hinge:
        '''A loss, or at least a class.'''

        def __init__(self, *, margin: float = 1.0) -> None:
            pass

        def forward(self, rewards, targets):
            pass
    """
LIAR = """
    from basereward.backbones.tiny import Tiny

    class Liar(Tiny):
        '''Twice as wide as it is.'''

        def __init__(self, *, model: str | None = None) -> None:
            super().__init__(model=model)
            self.dim = 64
    """


@dataclass(frozen=True)
class Installed:
    """A distribution with one module of hooks.

    Args:
        hooks: The source of its module.
        error: Why it does not load.
        plugin: Its plugin's name; its own if empty.
        requires: What it requires.
        parts: The source of a second module, for its components.
    """

    hooks: str
    error: str | None = None
    plugin: str = ""
    requires: str = ""
    parts: str = ""


def losses(mapping: str, hook: str = "basereward_losses") -> str:
    return f"{HEADER}@hookimpl\ndef {hook}(): return {mapping}\n"


DISTRIBUTIONS = {
    "a-good-one": Installed(losses("{'good': 'a_good_one_parts:Hinge'}"), parts=PARTS),
    "b-lacks-a-module": Installed(
        "import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"
    ),
    "c-exits": Installed("raise SystemExit('I want it all')\n", "SystemExit: I want it all"),
    "d-is-too-old": Installed(
        losses("{'old': 'm:X'}"), f"needs basereward<0.1, this is {__version__}", requires="basereward<0.1"
    ),
    "e-is-too-new": Installed(
        losses("{'new': 'm:X'}"),
        f"needs basereward>=9, this is {__version__}",
        requires="basereward[train]>=9",
    ),
    "f-misspells": Installed(
        losses("{}", "basereward_loses"),
        f"unknown hook 'basereward_loses'; did you mean 'basereward_losses'? hooks: {HOOKS}",
    ),
    "g-raises": Installed(losses("{'x': 1 / 0}"), "ZeroDivisionError: division by zero"),
    "h-returns-a-list": Installed(
        losses("['m:X']"), "basereward_losses returned list, not a mapping of names to 'module:Class'"
    ),
    "i-names-badly": Installed(
        losses("{'Focal_Loss': 'm:X'}"),
        "bad loss name 'Focal_Loss'; names are lower-case words joined by '-' or '.', such as "
        "'bradley-terry'",
    ),
    "j-targets-badly": Installed(
        losses("{'focal': 'm.X'}"), "loss 'focal' is registered as 'm.X'; write 'module:Class'"
    ),
    "k-is-called-badly": Installed(
        losses("{}"),
        "bad plugin name 'K_Bad'; names are lower-case words joined by '-' or '.', such as 'bradley-terry'",
        plugin="K_Bad",
    ),
    "l-first-twin": Installed(losses("{'twin': 'm:X'}"), plugin="twin"),
    "m-second-twin": Installed(
        losses("{'twin': 'm:X'}"), "the name is taken by the plugin in l_first_twin", plugin="twin"
    ),
    "n-shares-a-name": Installed(losses("{'hinge': 'n_shares_a_name_parts:Hinge'}"), parts=PARTS),
    "o-lacks-a-target": Installed(losses("{'lost': 'o_lacks_a_target_parts:Lost'}"), parts=PARTS),
    "p-logs-badly": Installed(f"{HEADER}@hookimpl\ndef basereward_log(record): raise OSError('disk full')\n"),
    "q-lies": Installed(losses("{'liar': 'q_lies_parts:Liar'}", "basereward_backbones"), parts=LIAR),
}
LOST = (
    "loss 'lost' of plugin 'o-lacks-a-target' (o_lacks_a_target_parts:Lost) failed to load: "
    "AttributeError: module 'o_lacks_a_target_parts' has no attribute 'Lost'"
)
TWIN = "loss 'twin' of plugin 'twin' (m:X) failed to load: ModuleNotFoundError: No module named 'm'"


def wheel(directory: Path, name: str, installed: Installed) -> Path:
    """Write a wheel as a build would, and return it."""
    module = name.replace("-", "_")
    requires = f"Requires-Dist: {installed.requires}\n" if installed.requires else ""
    info = f"{module}-1.0.dist-info"
    content = {
        f"{module}.py": textwrap.dedent(installed.hooks),
        f"{module}_parts.py": textwrap.dedent(installed.parts),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[basereward]\n{installed.plugin or name} = {module}\n",
    }
    content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*content, f"{info}/RECORD"))
    path = directory / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in content.items():
            archive.writestr(place, text)
    return path


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Return an environment in which all of them are installed, with pip."""
    root = tmp_path_factory.mktemp("broken")
    made = Environment.make(root / "venv")
    wheels = [wheel(root, name, installed) for name, installed in DISTRIBUTIONS.items()]
    done = made.run("pip", "install", *map(str, wheels))
    assert done.returncode == 0, done.stderr
    return made


def warned(stderr: str) -> list[str]:
    return [line.removeprefix("basereward: warning: ") for line in stderr.splitlines()]


FAILED = {
    (DISTRIBUTIONS[name].plugin or name, name): DISTRIBUTIONS[name].error
    for name in DISTRIBUTIONS
    if DISTRIBUTIONS[name].error
}
EXPECTED = [f"plugin {plugin!r} did not load: {error}" for (plugin, _), error in sorted(FAILED.items())]


def test_what_is_broken_is_warned_about_once_and_costs_nothing_else(
    environment: Environment, tmp_path: Path
) -> None:
    done = environment.run("basereward", "plugins", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert warned(done.stderr) == EXPECTED
    entries = {entry["target"]: entry for entry in json.loads(done.stdout)["plugins"]}
    for name, installed in DISTRIBUTIONS.items():
        entry = entries[name.replace("-", "_")]
        status = "failed" if installed.error else "loaded"
        assert (entry["status"], entry["error"]) == (status, installed.error)
        assert (entry["distribution"], entry["version"]) == (name, "1.0")
    shown = environment.run("basereward", "show", "loss", "good", cwd=tmp_path)
    assert (shown.returncode, warned(shown.stderr)) == (0, EXPECTED)
    assert shown.stdout.startswith("loss good: A loss, or at least a class.\n\nplugin  a-good-one 1.0\n")


MESSAGES = {
    "hinge": "loss 'hinge' is provided by several plugins; write basereward/hinge or n-shares-a-name/hinge",
    "lost": LOST,
    "twin": TWIN,
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_cannot_be_used_says_why_only_when_it_is_used(
    environment: Environment, tmp_path: Path, name: str
) -> None:
    done = environment.run("basereward", "show", "loss", name, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[len(EXPECTED) :] == [f"basereward: error: {MESSAGES[name]}"]
    both = environment.run("basereward", "show", "loss", "n-shares-a-name/hinge", cwd=tmp_path)
    assert (both.returncode, warned(both.stderr)) == (0, EXPECTED)


def test_an_unknown_name_is_answered_with_what_there_is_and_what_did_not_load(
    environment: Environment, tmp_path: Path
) -> None:
    done = environment.run("basereward", "show", "loss", "godo", cwd=tmp_path)
    broken = ", ".join(f"{plugin} ({error})" for (plugin, _), error in sorted(FAILED.items()))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "basereward: error: unknown loss 'godo'; did you mean 'good'? losses: basereward/hinge, "
        "binary-cross-entropy, bradley-terry, good, lost, n-shares-a-name/hinge, plackett-luce, "
        "regression, twin; "
        f"plugins that did not load: {broken}"
    )


def test_the_check_for_ci_fails_and_lists_every_failure(environment: Environment, tmp_path: Path) -> None:
    done = environment.run("basereward", "plugins", "--check", cwd=tmp_path)
    assert done.returncode == 1
    assert f"    {LOST}" in done.stdout.splitlines()
    assert f"    {TWIN}" in done.stdout.splitlines()
    num_failed = sum(installed.error is not None for installed in DISTRIBUTIONS.values())
    # The two losses above; a name that two plugins have is no failure.
    assert re.search(
        rf"^plugins: \d+ checked, {num_failed} failed; components: \d+ checked, 2 failed$",
        done.stdout.splitlines()[-1],
    )


def test_warnings_are_fatal_where_they_are_errors(environment: Environment, tmp_path: Path) -> None:
    done = environment.run("python", "-W", "error", "-m", "basereward", "plugins", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"basereward.plugins.loading.PluginWarning: {EXPECTED[0]}"


def test_a_logger_that_fails_is_warned_about_once_and_ends_no_training(
    environment: Environment, tmp_path: Path
) -> None:
    row = {"prompt": "what", "responses": ["cat", "dog"], "ranks": [0, 1]}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 4)
    (tmp_path / "run.toml").write_text(
        """
        output = "run"
        backbone = "tiny"
        data.train = [{ name = "basereward", path = "rows.jsonl" }]
        train = { epochs = 3, batch_size = 4, log_every = 1 }
        """
    )
    done = environment.run("basereward", "train", "run.toml", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert warned(done.stderr) == [
        *EXPECTED,
        "plugin 'p-logs-badly' failed in basereward_log and gets no more events: OSError: disk full",
    ]
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "step"] == [1, 2, 3]


def test_a_component_that_lies_about_its_width_is_caught_by_the_kit(
    environment: Environment, tmp_path: Path
) -> None:
    (tmp_path / "test_liar.py").write_text(
        "from basereward.testing import conformance\n\n\n"
        '@conformance("q-lies")\ndef test_conformance(check):\n    check()\n'
    )
    command = ("pytest", "-q", "-W", "error", "-k", "has-its-width or has-a-docstring", "test_liar.py")
    done = environment.run(*command, cwd=tmp_path)
    assert done.stdout.splitlines()[-1].startswith("1 failed, 1 passed")
    assert re.search(
        r"Failed: dim is 64, but the hidden states of \d+ rows of \d+ tokens have shape \[\d+, \d+, 32\], "
        r"not \[\d+, \d+, 64\]\n",
        done.stdout,
    )
