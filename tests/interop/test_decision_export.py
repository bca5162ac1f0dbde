"""A judge of verdicts, exported for transformers' `pipeline("decision")`, gives the same probabilities."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import tiny
import transformers
from packaging.version import Version

from basereward import Comparison, RewardModel
from basereward.config import Component
from basereward.errors import ConfigError
from basereward.interop.exporting import export_model
from basereward.paradigms.generative import Generative

PROMPT = "what is shown? <|im_end|>\n"
RESPONSES = ("a red cat sits", "the dog  runs\n")


def judge(directory: Path, kind: str) -> RewardModel:
    model = tiny.add_language_head(tiny.save_causal_lm(directory, kind))
    backbone = Component("causal-lm", {"model": str(model)})
    return RewardModel.build(backbone=backbone, paradigm=Component("generative", {}))


@pytest.mark.skipif(Version(transformers.__version__) < Version("5.23"), reason="it has no decisions")
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_the_pipeline_gives_the_judges_probabilities(kind: str, tmp_path: Path) -> None:
    model = judge(tmp_path / "model", kind)
    model.save(tmp_path / "judge")
    model = RewardModel.load(tmp_path / "judge", device="cpu")
    export_model(model, tmp_path / "export", "decision")
    assert json.loads((tmp_path / "export" / "decision.json").read_text())["labels"] == {"choice": ["1", "2"]}
    decide = transformers.pipeline("decision", model=str(tmp_path / "export"), device="cpu")
    odds = []
    for first, second in (RESPONSES, RESPONSES[::-1]):
        question = {"type": "choice", "criteria": {"one": first, "two": second}}
        shares = decide({"state": PROMPT, "questions": {"q": question}})["q"]["probabilities"]
        odds.append(math.log(shares["one"] / shares["two"]))
    [rewards] = model.score([Comparison(PROMPT, RESPONSES)])
    # The mean of the log-odds of both orders.
    expected = 1 / (1 + math.exp(-(odds[0] - odds[1]) / 2))
    assert rewards == pytest.approx([expected, 1 - expected], abs=1e-6)
    assert abs(odds[0] + odds[1]) > 1e-3  # the order matters, so that the test can tell
    with pytest.raises(Exception, match="answers a choice of two responses, and no other question"):
        decide({"state": "x", "questions": {"q": {"type": "noul", "instructions": "is it?"}}})


def test_only_text_judges_of_verdicts_are_exported(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    scalar = RewardModel.build(backbone=Component("tiny", {}))
    with pytest.raises(ConfigError, match="no judge with a template of verdicts"):
        export_model(scalar, tmp_path / "export", "decision")
    assert not isinstance(scalar.paradigm, Generative)
