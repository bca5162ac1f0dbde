"""Commands and snippets of docs/serving.md work as they are written."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import tiny
from served import Client

from basereward.serving.apis import apis
from basereward.serving.apis.base import REFUSED_FIELDS, ClientFields
from basereward.serving.apis.chat import GIVEN
from basereward.serving.apis.native import RewardItem
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
    assert len(commands) == 4
    for command in commands:
        parser.parse_args(shlex.split(command, comments=True)[2:])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_decisions_are_asked_of_both_paths(vision: Client) -> None:
    _, commands = (block for block in blocks("bash") if block.startswith("curl"))
    run = commands.replace("localhost:8000", f"localhost:{vision.port}")
    done = subprocess.run(run, shell=True, capture_output=True, text=True, check=True)
    systemone, end = json.JSONDecoder().raw_decode(done.stdout)
    decisions = json.loads(done.stdout[end:])
    shares = [entry["probability"] for entry in decisions["answers"][0]["probabilities"]]
    assert list(systemone["answers"]["best"]["probabilities"].values()) == pytest.approx(shares, abs=1e-6)
    assert sum(shares) == pytest.approx(1)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_an_answer_of_the_shape_that_is_shown(vision: Client) -> None:
    command, _ = (block for block in blocks("bash") if block.startswith("curl"))
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


BEGIN, END = "<!-- written by tests/docs/test_serving_docs.py -->\n", "<!-- end -->\n"


def fields_table() -> str:
    """Return the table of what is read, ignored and refused of a request, as the code has it."""

    def names(fields: Iterable[str]) -> str:
        return ", ".join(f"`{field}`" for field in fields)

    others = {*REFUSED_FIELDS, *ClientFields.__struct_fields__}
    rows = [
        (" ".join(f"`{path}`" for path in api.paths), "read", names(own))
        for api in apis()
        if (own := [field for field in api.request_type.__struct_fields__ if field not in others])
    ]
    rows += [
        ("an item of `/v1/rewards`", "read", names(RewardItem.__struct_fields__)),
        ("a message", "read", names(("role", "content"))),
        ("a message", "passed to the chat template", names(GIVEN)),
        ("a content part", "read", names(("type", "text", "image", "image_url"))),
        ("a content part", "ignored", names(("uuid", "cache_control", "image_url.detail"))),
        ("all but `/v1/rewards`", "ignored", names(ClientFields.__struct_fields__)),
        ("all but `/v1/rewards`", "**refused** (`argument_not_allowed`)", names(REFUSED_FIELDS)),
        ("the last message of a conversation", "**refused** (`response_not_text`)", names(GIVEN)),
        ("everywhere", "**refused** (`body_not_valid`)", "any other field that is not null"),
    ]
    lines = ["| where | | fields |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "".join(line + "\n" for line in lines)


def test_the_document_has_the_fields_of_the_code() -> None:
    written = TEXT.partition(BEGIN)[2].partition(END)[0]
    assert written == fields_table(), "run python tests/docs/test_serving_docs.py"


if __name__ == "__main__":
    before, _, rest = TEXT.partition(BEGIN)
    (DOCS / "serving.md").write_text(
        before + BEGIN + fields_table() + END + rest.partition(END)[2], encoding="utf-8"
    )
