"""A server of typed decisions is a judge wherever a judge is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
from decision_server import DecisionServer, pipeline_server
from judge_server import serving
from served import running

from basereward.cli import main
from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.integrations.reward_source import reward_source
from basereward.scoring.judge_settings import is_judge
from basereward.scoring.loading import load_scorer
from basereward.scoring.reward_model import RewardModel
from basereward.scoring.writer_judge import WriterJudge
from basereward.serving.app import Server
from basereward.serving.engine import ModelEngine
from basereward.stats.calibration import Calibration
from basereward.writers import http_sender

pytest.importorskip("httpx2")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_sender, "FIRST_WAIT", 0.002)


def rows(num: int = 2, **more: Any) -> list[Comparison]:
    return [
        Comparison(f"what is {number}", ["a red cat", "the dog"], ranks=[0, 1], **more)
        for number in range(num)
    ]


def sigmoid(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


def judge_file(directory: Path, url: str, **options: Any) -> Path:
    path = directory / "judge.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in {"urls": [url], **options}.items()]
    path.write_text("\n".join(["[writer]", 'name = "endpoint"', *lines]) + "\n")
    return path


@pytest.mark.parametrize("api", ["decisions", "systemone"])
def test_our_own_servers_decisions_are_the_softmax_of_its_rewards(
    api: str, vision_engine: ModelEngine, tmp_path: Path
) -> None:
    model = vision_engine.model
    assert isinstance(model, RewardModel)
    chat = [("system", "be brief"), ("user", "hi"), ("assistant", "ho"), ("user", "<image> what is it")]
    image = tiny.image(84, 56)
    asked = [
        *rows(),
        Comparison(
            [{"role": role, "content": text} for role, text in chat], ["a cat", "a dog"], images=[image]
        ),
        Comparison(
            "what <image> is <image>", ["a cat", "the mat", "a dog"], images=[image, tiny.image(56, 56, 1)]
        ),
    ]
    with running(Server([ModelEngine("sees", model, "", Calibration(0.5))])) as client:
        judge = WriterJudge.load(judge_file(tmp_path, f"http://127.0.0.1:{client.port}", api=api))
        results = judge.score(asked)
    for comparison, rewards in zip(asked, results, strict=True):
        [scalar] = model.score([comparison])
        others = [[sigmoid((one - other) / 0.5) for other in scalar] for one in scalar]
        # The mean over the others; a response against itself has 1 / 2, which is taken off.
        expected = [(sum(row) - 0.5) / (len(row) - 1) for row in others]
        assert rewards == pytest.approx(expected, abs=1e-6)
    assert judge.facts == {"judge": "sees", "answered_by": "sees", "server": f"/v1/{api}, images yes"}
    statistics = judge.statistics
    # 2 + 2 + 2 + 6 questions, both orders of each pair.
    assert (statistics["answers"], statistics["requests"], statistics["position_consistency"]) == (
        12,
        12,
        1.0,
    )
    assert judge.computed["template"] == "none: decisions"


def biased(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    """Return a decision with odds of 3 for the longer response and of 2 for the first."""
    if path != "/v1/decisions":
        return 404, {"detail": "Not Found"}
    [question] = body["questions"]
    first, second = (len(option["description"]) for option in question["choices"])
    odds = 2.0 * 3.0 ** (1 if first > second else -1)
    shares = [odds / (1 + odds), 1 / (1 + odds)]
    given = [
        {"value": option["value"], "probability": share}
        for option, share in zip(question["choices"], shares, strict=True)
    ]
    answer = {"type": "choice", "name": "q", "choice": "1", "confidence": 0.123, "probabilities": given}
    return 200, {"answers": [answer], "model": "decider-2", "usage": {"input_tokens": 7}}


def test_both_orders_are_asked_so_that_a_bias_of_place_cancels() -> None:
    with serving(DecisionServer(biased)) as server:
        judge = WriterJudge.load(f"decisions+{server.url}")
        # The log-odds of both orders are ln 6 and -ln(2 / 3); their mean is ln 3.
        assert judge.score(rows(1)) == [[pytest.approx(0.75), pytest.approx(0.25)]]
        assert judge.facts["server"] == "/v1/decisions, images no"  # it counts as many tokens with one
        results = [result for _, result in judge.score_stream(rows(1, images=[tiny.image()]))]
    assert isinstance(results[0], DataError)
    assert "the server reads no images" in str(results[0])
    orders = [
        [option["description"] for option in body["questions"][0]["choices"]] for _, body in server.asked
    ]
    assert orders[-2:] == [["a red cat", "the dog"], ["the dog", "a red cat"]]
    assert judge.statistics["prompt_tokens"] == 2 * 7


def test_it_is_named_wherever_a_judge_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [
        {"prompt": f"question {at}", "responses": ["the longer one", "short"], "ranks": [0, 1]}
        for at in range(3)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with serving(DecisionServer(biased)) as server:
        name = f"decisions+{server.url.removesuffix('/v1')}"
        assert is_judge(name)
        assert reward_source(name)(rows(1)) == [[pytest.approx(0.75), pytest.approx(0.25)]]
        data, out = str(path), str(tmp_path / "out")
        assert main(["evaluate", name, "--data", data, "--output", f"{out}-report", "--quiet"]) == 0
        assert json.loads((tmp_path / "out-report" / "report.json").read_text())["answered_by"] == "decider-2"
        assert main(["score", name, "--input", data, "--output", f"{out}.jsonl", "--quiet"]) == 0
        assert main(["best-of-n", name, data, "--output", f"{out}-best.jsonl", "--quiet"]) == 0
        assert main(["filter", name, data, "--output", f"{out}-kept.jsonl", "--quiet"]) == 0
        assert main(["score-shards", name, data, "--output", f"{out}-shards", "--quiet"]) == 0
    best = [json.loads(line)["responses"] for line in (tmp_path / "out-best.jsonl").read_text().splitlines()]
    assert best == [["the longer one"]] * 3


def changed(**changes: Any) -> DecisionServer:
    """Return a server whose answers to all but probes are changed."""

    def respond(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        status, answer = biased(path, body)
        if status == 200 and "Which number" not in json.dumps(body):
            return 200, {**answer, **changes}
        return status, answer

    return DecisionServer(respond)


WRONG = {
    "no answers": ({"answers": []}, "the answer has no answers with one decision"),
    "a refusal": ({"answers": [{"type": "refusal", "name": "q"}]}, "the server's model refuses to decide"),
    "no probabilities": (
        {"answers": [{"type": "choice", "choice": "1", "confidence": 0.9}]},
        "the answer has other probabilities than of the options: None",
    ),
    "probabilities of others": (
        {"answers": [{"probabilities": {"1": 0.5, "3": 0.5}}]},
        "the answer has other probabilities than of the options",
    ),
    "too much": ({"answers": [{"probabilities": {"1": 0.9, "2": 0.9}}]}, "add up to 1.8, not to 1"),
    "no numbers": (
        {"answers": [{"probabilities": {"1": "0.5", "2": 0.5}}]},
        "the answer's probabilities are none",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_answer_that_is_no_decision_is_a_named_row(case: str) -> None:
    changes, reason = WRONG[case]
    with serving(changed(**changes)) as server:
        [(_, result)] = WriterJudge.load(f"decisions+{server.url}").score_stream(rows(1))
    assert isinstance(result, DataError)
    assert reason in str(result)


def test_options_of_little_probability_are_a_verdict_that_cannot_be_read() -> None:
    with serving(changed(diagnostics={"q": {"label_mass": 0.02}})) as server:
        judge = WriterJudge.load(f"decisions+{server.url}")
        [(_, result)] = judge.score_stream(rows(1))
    assert isinstance(result, DataError)
    assert judge.statistics["parse_failure_rate"] == 1.0


def test_a_server_without_decisions_is_named(tmp_path: Path) -> None:
    with (
        serving(
            DecisionServer(lambda path, body: (501, {"error": {"message": "not a decision model"}}))
        ) as server,
        pytest.raises(
            ConfigError, match="makes no decisions: /v1/decisions: .* answers 501: 'not a decision model'"
        ),
    ):
        WriterJudge.load(f"decisions+{server.url}").score(rows(1))


def test_a_template_is_not_for_decisions(tmp_path: Path) -> None:
    path = judge_file(tmp_path, "http://127.0.0.1:1", api="decisions")
    path.write_text('template = "reasoned"\n' + path.read_text())
    with pytest.raises(ConfigError, match="decisions, which need no template; leave out template"):
        load_scorer(path)


def test_transformers_own_pipeline_is_asked_in_both_orders(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", minversion="5.23")
    directory = tiny.add_language_head(tiny.save_causal_lm(tmp_path / "model", "qwen2"))
    model = transformers.Qwen2ForCausalLM.from_pretrained(directory)
    pipeline = transformers.pipeline("decision", model=model, tokenizer=tiny.tokenizer())
    [comparison] = rows(1)
    question = {"type": "choice", "instructions": "Which response is better?"}
    shares = []
    for first, second in (comparison.responses, comparison.responses[::-1]):
        criteria = {"1": first, "2": second}
        asked = {"state": "what is 0", "questions": {"q": {**question, "criteria": criteria}}}
        shares.append(pipeline(asked)["q"]["probabilities"]["1"])
    odds = [math.log(share / (1 - share)) for share in shares]
    expected = sigmoid((odds[0] - odds[1]) / 2)
    with serving(pipeline_server(pipeline)) as server:
        judge = WriterJudge.load(f"decisions+{server.url}")
        [rewards] = judge.score([comparison])
    assert rewards == pytest.approx([expected, 1 - expected], abs=1e-6)
    assert judge.facts["server"] == "/v1/systemone, images no"
