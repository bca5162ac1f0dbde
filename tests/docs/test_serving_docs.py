"""Commands and snippets of docs/serving.md work as they are written."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import tiny
from served import Client

from basereward.serving.apis import apis
from basereward.serving.problems import PROBLEMS

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "serving.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_every_command_is_one_that_there_is() -> None:
    import argparse

    from basereward.cli import serve

    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    commands = [
        line for block in blocks("bash") for line in block.splitlines() if line.startswith("basereward")
    ]
    assert len(commands) == 3
    for command in commands:
        parser.parse_args(shlex.split(command, comments=True)[2:])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_an_answer_of_the_shape_that_is_shown(vision: Client) -> None:
    [command] = [block for block in blocks("bash") if block.startswith("curl")]
    command = command.replace("localhost:8000", f"localhost:{vision.port}")
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    shown, _ = (json.loads(block) for block in blocks("json"))
    answer = json.loads(done.stdout)
    assert answer.keys() == shown.keys()
    assert answer["data"][0].keys() == shown["data"][0].keys()
    assert len(answer["data"][0]["rewards"]) == 2


def test_the_python_gets_rewards(vision: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.image().save(tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)
    [code] = blocks("python")
    # A context manager, where the text is short instead.
    code = code.replace('open("cat.png", "rb").read()', '__import__("pathlib").Path("cat.png").read_bytes()')
    names: dict[str, object] = {}
    exec(code.replace("localhost:8000", f"localhost:{vision.port}"), names)
    rewards = names["rewards"]
    assert isinstance(rewards, list)
    assert len(rewards) == 2


def test_a_problem_has_the_shape_that_is_shown(vision: Client) -> None:
    _, shown = (json.loads(block) for block in blocks("json"))
    reply = vision.rewards({"prompt": "x", "responses": ["a", " "]})
    assert reply.json == shown


def test_every_path_and_status_is_told() -> None:
    for api in apis():
        assert api.paths[0] in TEXT
    statuses = {str(status) for status, _ in PROBLEMS.values()}
    rows = [line for line in TEXT.splitlines() if line.startswith(("| 4", "| 5"))]
    told = set(re.findall(r"\b\d{3}\b", "".join(rows)))
    assert told == statuses


def test_every_link_leads_to_a_file() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert os.path.exists(DOCS / target), target
