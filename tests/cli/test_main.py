"""`basereward` itself: help, errors, and what plugins add to it."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import basereward
from basereward import cli
from basereward.plugins import plugin_manager

COMMANDS = [
    *"init train plan plot study ensemble evaluate audit score score-shards serve critique".split(),  # noqa: SIM905
    *"best-of-n rank filter export import data plugins recipes show new-plugin doctor completion".split(),  # noqa: SIM905
]


@pytest.fixture(autouse=True)
def only_what_the_test_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep installed plugins out of the commands that run in this process."""
    monkeypatch.setenv("BASEREWARD_DISABLE_PLUGINS", "*")
    # A manager of this test's own: the process's would keep the disabled plugins out of later tests.
    fresh = functools.cache(plugin_manager._process_manager.__wrapped__)
    monkeypatch.setattr(plugin_manager, "_process_manager", fresh)


def write(directory: Path, name: str, source: str) -> None:
    (directory / f"{name}.py").write_text(textwrap.dedent(source))


def test_help_lists_every_command(run_cli: Any) -> None:
    done = run_cli("--help")
    assert (done.returncode, done.stderr) == (0, "")
    commands = re.findall(r"^ {4}([\w-]+)(?: |$)", done.stdout.partition("\ncommands:\n")[2], re.MULTILINE)
    assert commands[: len(COMMANDS)] == [*COMMANDS]


HEAVY = {"torch", "transformers", "numpy", "PIL", "pyarrow", "matplotlib", "rich", "packaging"}


def first_to_load(code: str) -> str:
    """Run code in a new interpreter, and return the first `step(NAME)` that finds heavy modules loaded."""
    program = f"""
import contextlib, importlib, io, sys
def step(name):
    if found := sorted({HEAVY} & set(sys.modules)):
        sys.exit(f"{{name}}: {{found}}")
"""
    done = subprocess.run(
        [sys.executable, "-c", program + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(basereward.__file__).parents[1])},
        check=False,
    )
    assert done.returncode == bool(done.stderr), done.stderr
    return done.stderr.strip()


def test_help_does_not_wait_for_heavy_modules() -> None:
    # All in one interpreter: what one command's help had loaded, the next ones would show too.
    code = f"""
        from basereward.cli import main
        for arguments in {[["--help"], ["plugins"], *([name, "--help"] for name in COMMANDS)]}:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
                main(arguments)
            step(arguments)
        """
    assert first_to_load(code) == ""


def test_light_modules_import_nothing_heavy() -> None:
    modules = ["basereward", "basereward.config", "basereward.comparison", "basereward.media"]
    assert first_to_load(f"for name in {modules}: importlib.import_module(name); step(name)") == ""
    assert first_to_load("import packaging; step('packaging')") == "packaging: ['packaging']"


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert (exit_.value.code, capsys.readouterr().out) == (0, f"basereward {basereward.__version__}\n")


def test_version_is_the_distributions() -> None:
    import tomllib

    project = tomllib.loads((Path(basereward.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project.get("version", basereward.__version__) == basereward.__version__


def test_no_command_is_answered_with_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert capsys.readouterr().err.startswith("usage: basereward [-h] [-p MODULE] [--version] COMMAND ...\n")


def test_error_of_the_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "los", "hinge"]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (
        "",
        "basereward: error: unknown kind 'los'; did you mean 'loss'? kinds: backbone, head, loss, ensembler, "
        "paradigm, dataset, benchmark, writer\n",
    )


PLUGIN = """
    from basereward import hookimpl

    def run(args):
        print("hello", args.name)
        return 7

    @hookimpl
    def basereward_commands(subparsers):
        parser = subparsers.add_parser("greet", help="say hello")
        parser.add_argument("name")
        parser.set_defaults(run=run)
    """


@pytest.mark.parametrize("arguments", [["-p", "mine", "greet", "you"], ["greet", "you", "-p", "mine"]])
def test_module_in_the_current_directory_adds_a_command(
    run_cli: Any, tmp_path: Path, arguments: list[str]
) -> None:
    write(tmp_path, "mine", PLUGIN)
    done = run_cli(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (7, "hello you\n", "")
    # How wide the column of names is depends on what else is installed.
    assert re.search(r"^    greet +say hello$", run_cli("-p", "mine", "--help").stdout, flags=re.MULTILINE)


def test_text_that_begins_like_the_option_for_modules_stays_text(run_cli: Any, tmp_path: Path) -> None:
    write(tmp_path, "mine", PLUGIN)
    done = run_cli("-p", "mine", "greet", "--", "-pretty much")
    assert (done.returncode, done.stdout, done.stderr) == (7, "hello -pretty much\n", "")


@pytest.mark.parametrize(
    ("argument", "message"),
    [("-pmine", "write -p mine, with a space"), ("-p", "argument -p: expected one argument")],
)
def test_module_is_named_after_a_space(
    capsys: pytest.CaptureFixture[str], argument: str, message: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([argument])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"basereward: error: {message}"


def test_broken_plugin_is_one_line_of_warning(run_cli: Any, tmp_path: Path) -> None:
    write(tmp_path, "bad", "import no_such_module")
    done = run_cli("-p", "bad", "show", "loss", "hinge")
    assert done.returncode == 0
    assert done.stderr == (
        "basereward: warning: plugin 'bad' did not load: "
        "ModuleNotFoundError: No module named 'no_such_module'\n"
    )


def test_command_that_exists_already_costs_the_plugin_its_events(run_cli: Any, tmp_path: Path) -> None:
    write(tmp_path, "mine", PLUGIN.replace('"greet"', '"show"'))
    done = run_cli("-p", "mine", "show", "loss", "hinge")
    assert done.returncode == 0
    assert done.stderr == (
        "basereward: warning: plugin 'mine' failed in basereward_commands and gets no more events: "
        "ArgumentError: argument COMMAND: conflicting subparser: show\n"
    )


def test_plugin_warning_is_fatal_where_warnings_are_errors(run_cli: Any, tmp_path: Path) -> None:
    write(tmp_path, "bad", "import no_such_module")
    done = run_cli("-p", "bad", "plugins", PYTHONWARNINGS="error")
    assert done.returncode == 1
    assert "PluginWarning: plugin 'bad' did not load" in done.stderr


def test_interrupt_ends_quietly(run_cli: Any, tmp_path: Path) -> None:
    write(tmp_path, "mine", PLUGIN.replace('print("hello", args.name)', "raise KeyboardInterrupt"))
    done = run_cli("-p", "mine", "greet", "you")
    assert (done.returncode, done.stderr) == (130, "basereward: interrupted\n")


def test_reader_that_has_had_enough_is_no_error(run_cli: Any, tmp_path: Path) -> None:
    write(tmp_path, "mine", PLUGIN.replace('print("hello", args.name)', "raise BrokenPipeError"))
    done = run_cli("-p", "mine", "greet", "you")
    assert (done.returncode, done.stderr) == (141, "")


def test_a_mistyped_command_is_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["trian", "run.toml"])
    assert capsys.readouterr().err.endswith("error: there is no command 'trian'; did you mean 'train'?\n")
