"""The calls of vLLM's offline engine: those that its package declares, and what becomes of its answers.

No engine runs here. A stand-in takes the calls; where the package is installed, its sources are read and each
call is held against the signatures that they declare.
"""

from __future__ import annotations

import ast
import math
import sys
import types
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import basereward_vllm
import PIL.Image
import pytest
from basereward_vllm.writers import VLLM

from basereward.media.image import Image
from basereward.message import Message
from basereward.testing import Check, conformance
from basereward.writers.request import Completion, Request

CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
LONGEST = 200
"""Characters of a prompt that the stand-in takes."""


@dataclass
class Logprob:
    logprob: float
    decoded_token: str | None


@dataclass
class Output:
    text: str
    token_ids: list[int]
    finish_reason: str
    logprobs: list[dict[int, Logprob]] | None


@dataclass
class RequestOutput:
    outputs: list[Output]
    prompt_token_ids: list[int]


@dataclass
class SamplingParams:
    temperature: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    logprobs: int | None = None


class LLM:
    """Writes what the last message says, one token a word."""

    def __init__(self, **arguments: Any) -> None:
        CALLS.append(("LLM", (), arguments))

    def chat(self, *arguments: Any, **named: Any) -> list[RequestOutput]:
        CALLS.append(("chat", arguments, named))
        conversations, samplings = arguments
        texts = [text_of(conversation) for conversation in conversations]
        if any(len(text) > LONGEST for text in texts):
            raise ValueError(f"The decoder prompt is longer than the maximum model length of {LONGEST}")
        return [answer(text, sampling) for text, sampling in zip(texts, samplings, strict=True)]


def text_of(conversation: list[dict[str, Any]]) -> str:
    content = conversation[0]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "IMAGE ") for part in content)


def answer(text: str, sampling: SamplingParams) -> RequestOutput:
    words = text.split()
    written = words[: sampling.max_tokens]
    logprobs = None
    if sampling.logprobs:
        logprobs = [{1: Logprob(math.log(0.6), "1"), 2: Logprob(math.log(0.3), " 2"), 3: Logprob(-5.0, "x")}]
    ending = "length" if len(written) < len(words) else "stop"
    output = Output(" ".join(written), list(range(len(written))), ending, logprobs)
    return RequestOutput([output], list(range(len(words))))


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams
    module.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "vllm", module)
    CALLS.clear()


def asked(text: str, **settings: Any) -> Request:
    return Request([Message("user", (text,))], **settings)


def test_texts_come_in_order_with_their_endings() -> None:
    writer = VLLM(model="some/model")
    written = writer.write(
        [asked("a b c"), asked("d e f", max_tokens=2), asked("g", temperature=0.5, seed=3)]
    )
    assert [(each.text, each.ending) for each in written] == [
        ("a b c", "finished"),
        ("d e", "cut"),
        ("g", "finished"),
    ]
    assert [each.num_tokens for each in written] == [3, 2, 1]
    [made, chat] = CALLS
    assert made[2]["model"] == "some/model"
    conversations, samplings = chat[1]
    assert conversations[0] == [{"role": "user", "content": "a b c"}]
    assert samplings[2] == SamplingParams(temperature=0.5, seed=3, max_tokens=1024)
    assert samplings[0].seed is None
    assert writer.statistics == {"prompt_tokens": 7, "tokens": 6}


def test_choices_have_their_probabilities() -> None:
    [written] = VLLM(model="m").write([asked("1 or 2", choices=("1", "2"))])
    assert written.log_probabilities == pytest.approx({"1": math.log(0.6), "2": math.log(0.3)})
    assert CALLS[1][1][1][0].max_tokens == 1


def test_a_request_over_the_window_fails_alone() -> None:
    long = "word " * 100
    written = VLLM(model="m").write([asked("a"), asked(long), asked("b"), asked("c")])
    assert [each.text for each in written] == ["a", "", "b", "c"]
    assert written[1] == Completion.failed(
        f"vLLM refuses the request: The decoder prompt is longer than the maximum model length of {LONGEST}"
    )


def test_a_beginning_is_gone_on_with() -> None:
    written = VLLM(model="m").write([asked("a"), asked("b", beginning="<think>")])
    assert [each.text for each in written] == ["a", "<think>b"]
    plain, begun = (named for name, _, named in CALLS if name == "chat")
    assert (plain["add_generation_prompt"], plain["continue_final_message"]) == (True, False)
    assert (begun["add_generation_prompt"], begun["continue_final_message"]) == (False, True)


def test_images_are_in_their_place() -> None:
    image = Image(PIL.Image.new("RGB", (8, 8)))
    VLLM(model="m").write([Request([Message("user", (image, "what?"))])])
    [[message]] = CALLS[1][1][0]
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]


def test_one_engine_serves_all_calls() -> None:
    writer = VLLM(model="m", batch_size=2, engine={"enforce_eager": True})
    writer.write([asked(str(number)) for number in range(5)])
    assert [name for name, *_ in CALLS] == ["LLM", "chat", "chat", "chat"]
    assert CALLS[0][2]["enforce_eager"] is True


def sources() -> Path:
    """Return the directory of vLLM's sources, which are read and not imported: they need a GPU."""
    sys.modules.pop("vllm", None)
    spec = find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("vllm is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


@dataclass
class Signature:
    positional: list[str]
    keywords: set[str] = field(default_factory=set)
    takes_any: bool = False


def signature_of(path: Path, cls: str, method: str) -> Signature:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    [found] = [
        item
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name == cls
        for item in node.body
        if isinstance(item, ast.FunctionDef) and item.name == method
    ]
    arguments = found.args
    names = [each.arg for each in arguments.args[1:]]
    return Signature(
        names, {*names, *(each.arg for each in arguments.kwonlyargs)}, arguments.kwarg is not None
    )


def fields_of(path: Path, cls: str) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    [found] = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == cls]
    return {
        item.target.id
        for item in found.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }


def test_every_call_is_one_that_the_package_declares() -> None:
    VLLM(model="m").write([asked("a"), asked("b", beginning="x"), asked("1", choices=("1", "2"))])
    calls = list(CALLS)
    root = sources()
    llm = root / "entrypoints" / "llm.py"
    made, chat = signature_of(llm, "LLM", "__init__"), signature_of(llm, "LLM", "chat")
    engine_arguments = {"max_model_len", "limit_mm_per_prompt"}
    for name, arguments, named in calls:
        if name == "LLM":
            assert made.takes_any
            assert set(named) - engine_arguments <= made.keywords
        else:
            assert chat.positional[: len(arguments)] == ["messages", "sampling_params"]
            assert set(named) <= chat.keywords
    text = (root / "engine" / "arg_utils.py").read_text(encoding="utf-8")
    assert all(f"    {name}:" in text for name in engine_arguments)
    assert {"temperature", "seed", "max_tokens", "logprobs"} <= fields_of(
        root / "sampling_params.py", "SamplingParams"
    )
    assert {"text", "token_ids", "logprobs", "finish_reason"} <= fields_of(
        root / "outputs.py", "CompletionOutput"
    )
    assert {"logprob", "decoded_token"} <= fields_of(root / "logprobs.py", "Logprob")


@conformance(basereward_vllm, options={"writer/vllm": {"model": "m"}})
def test_conformance(check: Check) -> None:
    check()
