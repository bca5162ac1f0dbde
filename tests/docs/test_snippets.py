"""Every snippet of the documents is what it says it is.

Python compiles, and what it imports of BaseReward is there; a command line of ours has the options that it
gives; scripts and targets of make that a command line names are there; TOML and JSON can be read.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import tiny

from basereward import RewardModel, cli, read_comparisons
from basereward.cli import COMMANDS, add_command
from basereward.plugins.plugin_manager import manager

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS += sorted(ROOT.glob("plugins/*/README.md"))
SNIPPET = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
ENDS = {"|", ">", ">>", "&&", ";", "&", "..."}
"""Words of a shell that end a command."""

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def snippets(document: Path) -> list[tuple[str, str]]:
    """Return the language and the text of each fenced block that names its language."""
    return [
        (language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE))
        for indent, language, text in SNIPPET.findall(document.read_text(encoding="utf-8"))
    ]


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    """Return a parser of all commands, those of plugins among them."""
    parser = argparse.ArgumentParser(prog="basereward", exit_on_error=False, allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command")
    for command in COMMANDS:
        add_command(subparsers, command)
    manager().emit("basereward_commands", subparsers=subparsers)
    return parser


def check_python(text: str) -> None:
    """Raise where a snippet doesn't compile, or imports what isn't there."""
    is_excerpt = re.match(r"(#.*\n)* ", text)  # lines of a function
    for node in ast.walk(ast.parse(f"def function():\n{text}" if is_excerpt else text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "basereward":
            try:
                module = importlib.import_module(str(node.module))
            except ModuleNotFoundError as error:
                if (error.name or "basereward").split(".")[0] == "basereward":
                    raise
                continue  # it imports a package of an extra that isn't installed
            for name in node.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")


def commands(text: str) -> list[list[str]]:
    """Return the words of each command line, of which a quoted text may fill several lines."""
    lines, begun = [], ""
    for line in text.replace("\\\n", " ").splitlines():
        begun += f"{line}\n"
        with contextlib.suppress(ValueError):
            lines.append(shlex.split(begun, comments=True))
            begun = ""
    assert not begun, f"a quotation is not closed: {begun}"
    return lines


def check_command(words: list[str], place: Path, parser: argparse.ArgumentParser) -> None:
    """Raise where a line names a script, a target, a command or an option that isn't there."""
    for number, word in enumerate(words):
        before = words[number - 1] if number else ""
        if word.endswith(".py") and word.split("/")[0] in ("recipes", "benchmarks", "tests", "plugins"):
            assert (ROOT / word).is_file() or (place / word).is_file(), f"there is no {word}"
        if before == "make" and re.fullmatch("[a-z-]+", word):
            assert word in TARGETS, f"there is no target {word}"
        starts = not before or before in ("-m", *ENDS) or "=" in before
        if word == "basereward" and starts and number + 1 < len(words):
            rest = words[number + 1 :]
            end = next((place for place, item in enumerate(rest) if item in ENDS), len(rest))
            arguments = rest[:end]
            while "-p" in arguments:
                del arguments[arguments.index("-p") : arguments.index("-p") + 2]
            if arguments == ["--help"]:
                continue
            assert arguments[0] in (*COMMANDS, "demo", "human-ratings"), f"there is no command {arguments[0]}"
            try:
                parser.parse_args(arguments)
            except SystemExit:
                raise AssertionError(f"{shlex.join(words)} is no command line") from None


def check(language: str, text: str, place: Path, parser: argparse.ArgumentParser) -> None:
    """Raise where a snippet isn't what it says it is."""
    if language == "python":
        check_python(text)
    elif language == "toml":
        tomllib.loads(text)
    elif language == "json":
        try:
            json.loads(text)
        except ValueError:
            for line in text.splitlines():
                json.loads(line)
    elif language == "bash":
        for words in commands(text):
            check_command(words, place, parser)
    elif language == "text" and text.startswith("basereward "):
        for line in text.splitlines():
            check_command(shlex.split(line, comments=True), place, parser)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_snippet_is_what_it_says(
    document: Path, parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = []
    for language, text in snippets(document):
        try:
            check(language, text, document.parent, parser)
        except Exception as error:
            wrong.append(f"{language}: {error!r}: {capsys.readouterr().err.strip()} in\n{text}")
    assert not wrong, "\n".join(wrong)


def test_a_wrong_snippet_is_found(parser: argparse.ArgumentParser) -> None:
    wrong = {
        "python": ["from basereward import RewardModell", "x ="],
        "bash": [
            "basereward train run.toml --ouput x",
            "basereward trian run.toml",
            "make tests",
            "python benchmarks/none.py",
        ],
        "toml": ["a = "],
        "json": ["{"],
    }
    for language, texts in wrong.items():
        for text in texts:
            with pytest.raises((Exception, AssertionError)):
                check(language, text, ROOT, parser)


@pytest.fixture(scope="module")
def place(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the files that Python snippets of how-tos name."""
    place = tmp_path_factory.mktemp("how-tos")
    (place / "Qwen2.5-VL-3B-Instruct").symlink_to(tiny_models["qwen2_5_vl"])
    tiny.image().save(place / "cat.png")
    row = {"prompt": "What is it?", "responses": ["a cat", "a dog"], "ranks": [0, 1]}
    (place / "held-out.jsonl").write_text(f"{json.dumps(row)}\n" * 8)
    model = RewardModel.build("causal-lm", model=str(tiny_models["qwen2"]), head="linear")
    model.save(place / "runs" / "first" / "model")
    cli.main(["export", str(place / "runs/first/model"), "--output", str(place / "checkpoint")])
    return place


@pytest.mark.parametrize("page", ["trust.md", "caching.md", "interop.md", "training.md"])
def test_the_python_of_a_how_to_runs(page: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    [text] = [text for language, text in snippets(ROOT / "docs" / page) if language == "python"]
    model = RewardModel.load("runs/first/model")
    names: dict[str, object] = {"model": model, "comparisons": list(read_comparisons("held-out.jsonl"))}
    if page == "training.md":
        shutil.rmtree("runs")  # which the snippet writes
    exec(compile(text.replace("/data/cache", "cache"), page, "exec"), names)
    made = {"trust.md": "audit/report.html", "caching.md": "cache", "training.md": "model/head.safetensors"}
    assert Path(made.get(page, "checkpoint")).exists()
