"""A judge that asks a writer gives rewards as a judge of its own weights does, and never for a failure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from judge_server import Fault, JudgeServer, responses_of, serving

from basereward.cli import main
from basereward.comparison import Comparison
from basereward.config import Component
from basereward.errors import ConfigError, DataError
from basereward.evaluation import evaluate
from basereward.integrations.reward_source import reward_source
from basereward.scoring.judge_settings import is_judge
from basereward.scoring.loading import load_scorer
from basereward.scoring.reward_model import RewardModel
from basereward.scoring.writer_judge import WriterJudge
from basereward.writers import http_sender

pytest.importorskip("httpx2")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_sender, "FIRST_WAIT", 0.002)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with serving(JudgeServer()) as running:
        yield running


def rows(num: int = 6) -> list[Comparison]:
    """Return comparisons whose better response has more words, alternately the first and the second."""
    return [
        Comparison(
            f"question {number}",
            [f"two words {number}", "one"] if number % 2 == 0 else ["one", f"two words {number}"],
            ranks=[number % 2, 1 - number % 2],
            id=f"row-{number}",
        )
        for number in range(num)
    ]


def judge_file(directory: Path, server: JudgeServer, *lines: str, **options: Any) -> Path:
    path = directory / "judge.toml"
    options = {"urls": [server.url], **options}
    writer = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
    path.write_text("\n".join([*lines, "[writer]", 'name = "endpoint"', *writer]) + "\n")
    return path


def test_rewards_follow_from_log_probabilities_in_both_orders(server: JudgeServer) -> None:
    judge = WriterJudge.load(f"judge+{server.url}")
    # The better response has two words more: s(2) in one order and 1 - s(-2) in the other.
    share = 1 / (1 + math.exp(-2.0))
    for number, rewards in enumerate(judge.score(rows())):
        expected = [share, 1 - share] if number % 2 == 0 else [1 - share, share]
        assert rewards == pytest.approx(expected)
    assert len(server.asked) == 12
    statistics = judge.statistics
    assert {name: statistics[name] for name in ("answers", "parse_failure_rate", "position_consistency")} == {
        "answers": 12,
        "parse_failure_rate": 0.0,
        "position_consistency": 1.0,
    }
    assert "judged_by_text" not in statistics


def test_texts_are_read_where_there_are_no_log_probabilities(server: JudgeServer) -> None:
    server.gives_logprobs = False
    judge = WriterJudge.load(f"judge+{server.url}")
    assert judge.score(rows(2)) == [[1.0, 0.0], [0.0, 1.0]]
    assert judge.statistics["judged_by_text"] == 2
    assert judge.facts["server"].startswith("logprobs no")


@pytest.mark.parametrize(("text", "verdict"), [("1", 1), (" **2**", 2), ("1.", 1), ("12", None), ("A", None)])
def test_a_verdict_by_text_is_its_leading_number(server: JudgeServer, text: str, verdict: int | None) -> None:
    def write(answer: dict[str, Any]) -> dict[str, Any]:
        answer["choices"][0] |= {"message": {"content": text}, "finish_reason": "length"}
        return answer

    server.gives_logprobs = False
    server.faults = lambda number, body: Fault(change=write)
    judge = WriterJudge.load(f"judge+{server.url}")
    [(_, result)] = judge.score_stream(rows(1))
    if verdict is None:
        assert str(result) == "responses: no verdict could be read in what the judge wrote on its pairs"
    else:
        assert result == [0.5, 0.5]  # one place in both orders prefers none


def test_reasoned_verdicts_are_votes(server: JudgeServer, tmp_path: Path) -> None:
    def for_first_by_seed(answer: dict[str, Any], seed: int) -> dict[str, Any]:
        text = f"<think>x</think><answer>{1 if seed < 2 else 2}</answer>"
        answer["choices"][0]["message"] = {"content": text}
        return answer

    server.faults = lambda number, body: Fault(
        change=lambda answer: (
            for_first_by_seed(answer, body["seed"])
            if responses_of(body["messages"][0]["content"])[1] == "one"
            else answer
        )
    )
    judge = WriterJudge.load(
        judge_file(tmp_path, server, 'template = "reasoned"', "num_votes = 3", "max_answer_tokens = 20")
    )
    [rewards] = judge.score(rows(1))
    # Shown first, two of three votes are for the better one; shown second, all three.
    assert rewards == pytest.approx([(2 / 3 + 1) / 2, (1 / 3 + 0) / 2])
    assert len(server.asked) == 6
    assert all(body["max_tokens"] == 20 and body["temperature"] == 1.0 for body in server.asked)


def test_a_failure_is_a_named_row_and_costs_no_other(server: JudgeServer) -> None:
    def full(number: int, body: dict[str, Any]) -> Fault | None:
        if "question 1" in json.dumps(body) and responses_of(body["messages"][0]["content"])[0] == "one":
            return Fault(400, b'{"error": {"message": "the prompt is over the window"}}')
        return None

    server.faults = full
    judge = WriterJudge.load(f"judge+{server.url}")
    results = [result for _, result in judge.score_stream(rows(4))]
    assert [isinstance(result, DataError) for result in results] == [False, True, False, False]
    assert str(results[1]) == (
        f"judge: the judge has not answered 1 of 2 questions, the first: {server.url} answers 400: "
        "'the prompt is over the window'"
    )
    assert judge.statistics["failed"] == 1
    evaluation = evaluate(WriterJudge.load(f"judge+{server.url}"), rows(4))
    assert len(evaluation.results) == 3
    [rejected] = evaluation.rejected
    assert "the prompt is over the window" in str(rejected)


def test_verdicts_that_are_given_are_not_asked_for(server: JudgeServer, tmp_path: Path) -> None:
    path = judge_file(tmp_path, server, 'template = "reasoned"')
    text = "<think>x</think><answer>2</answer>"
    given = rows(1)[0].with_meta(verdicts=[{"first": 0, "second": 1, "text": text}])
    [rewards] = WriterJudge.load(path).score([given])
    # The given one is for the worse response, the server's for the better one.
    assert rewards == [0.5, 0.5]
    assert len(server.asked) == 1


def test_a_judge_of_any_writer_is_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = tiny.add_language_head(tiny.save_causal_lm(tmp_path / "model"))
    path = tmp_path / "judge.toml"
    path.write_text(f'[writer]\nname = "own"\nmodel = "{model}"\n')
    rewards = WriterJudge.load(path).score(rows(2))
    # As a judge of the same weights gives them: the same question, but for the turn it is asked in.
    judge = RewardModel.build(
        backbone=Component("causal-lm", {"model": str(model)}), paradigm=Component("generative")
    )
    judge.paradigm.turn = "opened"
    judge.paradigm.eval()
    for ours, theirs in zip(rewards, judge.score(rows(2)), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


WRONG_FILES = {
    'template = "verdict"': "needs 'writer'",
    'templat = "verdict"\n[writer]\nname = "endpoint"': "the top level has no key 'templat'",
    '[writer]\nname = "endpoit"': "unknown writer 'endpoit'; did you mean 'endpoint'?",
    '[writer]\nname = "endpoint"\nurl = "x"': "has no option 'url'; did you mean 'urls'?",
    'num_votes = 2\n[writer]\nname = "endpoint"': "num_votes is 2, but template 'verdict' gives",
    'max_pairs = 0\n[writer]\nname = "endpoint"': "max_pairs is a number >= 1, not 0",
    'template = "no"\n[writer]\nname = "endpoint"': "unknown judge template 'no'",
}


@pytest.mark.parametrize("text", WRONG_FILES)
def test_a_file_that_is_wrong_says_where(text: str, tmp_path: Path) -> None:
    path = tmp_path / "judge.toml"
    path.write_text(text)
    with pytest.raises((ConfigError, ValueError, Exception)) as caught:
        WriterJudge.load(path)
    assert WRONG_FILES[text] in str(caught.value)


def test_names_of_judges() -> None:
    assert is_judge("judge.toml")
    assert is_judge("judge+http://127.0.0.1:8000/v1")
    assert not is_judge("runs/model")
    assert not is_judge("http://127.0.0.1:8000")


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def data(directory: Path) -> Path:
    path = directory / "rows.jsonl"
    lines = [
        {
            "id": row.id,
            "prompt": row.prompt[0].text,
            "responses": list(row.responses),
            "ranks": list(row.ranks),
        }
        for row in rows()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_every_command_takes_a_judge_where_it_takes_a_model(
    server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = str(judge_file(tmp_path, server, cache=str(tmp_path / "cache")))
    path = str(data(tmp_path))
    assert main(["evaluate", judge, "--data", path, "--output", str(tmp_path / "report"), "--quiet"]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["accuracy"] == 1.0
    assert report["answered_by"] == "words-1"
    assert report["server"] == "logprobs yes, n yes, seed accepted, images yes"
    assert report["template"].startswith("verdict ")
    assert report["statistics"]["requests"] == 12
    num_asked = len(server.asked)
    output = tmp_path / "rewards.jsonl"
    assert main(["score", judge, "--input", path, "--output", str(output), "--quiet"]) == 0
    assert all(line["rewards"][0] != line["rewards"][1] for line in written(output))
    best = tmp_path / "best.jsonl"
    assert main(["best-of-n", judge, path, "--output", str(best), "--quiet"]) == 0
    assert [row["responses"] for row in written(best)] == [[f"two words {number}"] for number in range(6)]
    kept = tmp_path / "kept.jsonl"
    assert main(["filter", judge, path, "--output", str(kept), "--quiet"]) == 0
    assert len(written(kept)) == 6
    # All was in the cache.
    assert len(server.asked) == num_asked
    assert "answered by: words-1" in capsys.readouterr().err


def test_a_dry_run_says_what_it_would_take_and_asks_nothing(
    server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = str(judge_file(tmp_path, server, model="words-1", prompt_price=3.0, price=15.0))
    assert main(["evaluate", judge, "--data", str(data(tmp_path)), "--dry-run"]) == 0
    lines = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (lines["comparisons"], lines["requests"], lines["cached"]) == ("6", "12", "0")
    assert lines["tokens"] == str(12 * 16)
    assert float(lines["cost"]) > 12 * 16 * 15 / 1e6
    assert server.asked == server.probes == []
    assert main(["evaluate", "longest", "--data", str(data(tmp_path)), "--dry-run"]) == 2
    assert "--dry-run goes with a judge" in capsys.readouterr().err


def test_a_limit_of_the_command_line_holds(server: JudgeServer, tmp_path: Path) -> None:
    judge = str(judge_file(tmp_path, server, in_flight=1, prompt_price=0.0, price=1e6))
    output = tmp_path / "rewards.jsonl"
    # A question may write 16 tokens and writes 2, of a price of 1 each: 24 allow 5 questions of 12.
    arguments = ["score", judge, "--input", str(data(tmp_path)), "--output", str(output), "--max-cost", "24"]
    assert main([*arguments, "--quiet"]) == 0
    assert len(server.asked) == 5
    lines = written(output)
    assert [("error" in line) for line in lines] == [False, False, True, True, True, True]
    assert "the limit of cost is reached: 10 spent of 24" in lines[-1]["error"]


def test_traces_to_learn_from_are_those_that_are_right(server: JudgeServer, tmp_path: Path) -> None:
    judge = str(judge_file(tmp_path, server, 'template = "reasoned"'))

    def wrong(answer: dict[str, Any]) -> dict[str, Any]:
        answer["choices"][0]["message"] = {"content": "<think>x</think><answer>1</answer>"}
        return answer

    server.faults = lambda number, body: Fault(change=wrong)
    output = tmp_path / "verdicts.jsonl"
    path = str(data(tmp_path))
    assert main(["critique", judge, path, "--output", str(output), "--quiet"]) == 0
    assert [len(row["meta"]["verdicts"]) for row in written(output)] == [2] * 6
    num_asked = len(server.asked)
    # The texts are scored as they stand.
    assert WriterJudge.load(judge).score(list(load(output))) == [[0.5, 0.5]] * 6
    assert len(server.asked) == num_asked
    traces = tmp_path / "traces.jsonl"
    assert main(["critique", judge, path, "--output", str(traces), "--traces", "--quiet"]) == 0
    for number, row in enumerate(written(traces)):
        [entry] = row["meta"]["judgements"]
        # "1" is right where the better response is shown first.
        assert (entry["first"], entry["second"]) == ((0, 1) if number % 2 == 0 else (1, 0))


def load(path: Path) -> Iterator[Comparison]:
    from basereward.data.native import NativeDataset

    yield from NativeDataset(path)


def test_critiques_of_a_server_are_a_critics_to_score(server: JudgeServer, tmp_path: Path) -> None:
    judge = str(judge_file(tmp_path, server, 'template = "critique"'))
    output = tmp_path / "criticised.jsonl"
    assert main(["critique", judge, str(data(tmp_path)), "--output", str(output), "--quiet"]) == 0
    assert all(len(row["meta"]["critiques"]) == 2 for row in written(output))
    with pytest.raises(ConfigError, match="asks for critiques, of which a critic makes rewards"):
        WriterJudge.load(judge).score(rows(1))


def test_a_judge_is_a_reward_of_rl_trainers(server: JudgeServer, tmp_path: Path) -> None:
    judge = judge_file(tmp_path, server)
    server.faults = lambda number, body: Fault(seconds=0.02)
    rewards = reward_source(judge)(rows(8))
    assert all(isinstance(each, list) for each in rewards)
    # In bulk: none waited for another one alone.
    assert server.most_in_flight > 8
    assert isinstance(load_scorer(judge), WriterJudge)
