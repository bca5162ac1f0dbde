"""A judge that asks a writer for ratings or a choice has the rewards of the paradigm on the same weights."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny

from basereward.cli import main
from basereward.comparison import Comparison
from basereward.config import Component
from basereward.errors import ConfigError, DataError
from basereward.paradigms.judge_template import JudgeTemplate
from basereward.protocols import Writer
from basereward.scoring.judge_settings import JudgeSettings
from basereward.scoring.reward_model import RewardModel
from basereward.scoring.single_answers import SingleChoices, SingleRatings
from basereward.scoring.writer_judge import WriterJudge
from basereward.writers.request import Completion, Request

ROW = Comparison("what is shown?", ["a cat sits", "the dog runs", "a red house"], ranks=[0, 1, 2])
RUBRIC = [{"ask": "is it a cat?", "weight": 3}, {"ask": "is it red?", "weight": -1}]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.add_language_head(tiny.save_causal_lm(tmp_path_factory.mktemp("single") / "model"))


@pytest.mark.parametrize(
    ("template", "paradigm", "row"),
    [
        ("rating", "pointwise", ROW),
        ("rubric", "pointwise", ROW.with_meta(rubric=RUBRIC)),
        ("choice", "listwise", ROW),
    ],
)
def test_rewards_and_counts_are_those_of_the_paradigm(
    directory: Path, template: str, paradigm: str, row: Comparison
) -> None:
    model = RewardModel.build(
        backbone=Component("causal-lm", {"model": str(directory)}),
        paradigm=Component(paradigm, {"template": template}),
    )
    model.paradigm.eval()
    judge = WriterJudge(JudgeSettings(Component("own", {"model": str(directory)}), template=template))
    [expected] = model.score([row])
    assert judge.score([row])[0] == pytest.approx(expected, abs=1e-4)
    assert {name: judge.statistics[name] for name in model.statistics} == pytest.approx(
        dict(model.statistics), abs=1e-5
    )


def texts(*answers: str) -> list[Completion]:
    return [Completion(text) for text in answers]


def test_texts_are_read_where_there_are_no_log_probabilities() -> None:
    rubric = SingleRatings(JudgeTemplate.load("rubric"), 16)
    row = ROW.with_meta(rubric=RUBRIC)
    assert len(rubric.requests(row)) == 3 * 2
    # Yes to the first item is 3 of 3, yes to the second one less by 1 of 3.
    assert rubric.rewards(row, texts("Yes", "No", " **yes**", "Yes.", "No", "Yes")) == pytest.approx(
        [1, 2 / 3, -1 / 3]
    )
    assert rubric.statistics == {"answers": 6, "parse_failure_rate": 0.0, "judged_by_text": 1}
    choice = SingleChoices(JudgeTemplate.load("choice"), None)
    assert [request.choices for request in choice.requests(ROW)] == [("A", "B", "C")] * 3
    # Orders 0 1 2, 1 2 0, 2 0 1: the first response, the same, and what can't be read.
    assert choice.rewards(ROW, texts("A", "C.", "D")) == [1.0, 0.0, 0.0]
    assert choice.statistics == {
        "answers": 3,
        "parse_failure_rate": 1 / 3,
        "position_consistency": 1.0,
        "first_preferred": 0.5,
        "judged_by_text": 1,
    }
    assert all(map(math.isnan, choice.rewards(ROW, texts("?", "E", ""))))


def test_an_explained_rating_is_the_one_that_was_written() -> None:
    rater = SingleRatings(JudgeTemplate.load("unified-reward-score"), 64)
    row = ROW.with_meta(critiques=[None, "Wrong.\nFinal Score: 2", None])
    requests = rater.requests(row)
    assert [request.max_tokens for request in requests] == [64, 64]
    assert rater.rewards(row, texts("Right.\nFinal Score: 5", "Final Score: 1")) == [5, 2, 1]
    assert math.isnan(rater.rewards(row, texts("Right.", "Final Score: 1"))[0])
    assert rater.statistics["parse_failure_rate"] == 1 / 6


class Listing(Writer):
    """Writes a rubric for the first request, and nothing of use for others."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        self.asked += requests
        return [
            Completion("- [2] Is it a cat?" if "first" in str(request.messages) else "I can't.")
            for request in requests
        ]


def test_a_judge_writes_the_rubric_first(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = JudgeSettings(Component("own", {}), template="criteria")
    monkeypatch.setattr("basereward.plugins.plugin_manager.PluginManager.build", lambda *given: Listing())
    judge = WriterJudge(settings)
    assert judge.text_key == "rubric"
    rows = [Comparison(text, ["a", "b"]) for text in ("first", "second")]
    rows.append(rows[0].with_meta(rubric=RUBRIC))
    found: list[Any] = judge.texts(rows)
    assert found[0] == [{"ask": "Is it a cat?", "weight": 2.0}]
    assert isinstance(found[1], DataError)
    assert str(found[1]) == 'judge: no item of a rubric could be read in "I can\'t."'
    assert found[2] == RUBRIC
    assert len(judge.writer.asked) == 2
    with pytest.raises(ConfigError, match="asks for the items of rubrics"):
        next(iter(judge.score_stream(rows)))


def test_ratings_are_evaluated_and_rubrics_kept(directory: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({**ROW.to_dict(), "meta": {"rubric": RUBRIC}}) + "\n")
    (tmp_path / "judge.toml").write_text(
        f'template = "rating"\n[writer]\nname = "own"\nmodel = "{directory}"\n'
    )
    command = ["evaluate", str(tmp_path / "judge.toml"), "--data", str(tmp_path / "rows.jsonl"), "--quiet"]
    assert main([*command, "--output", str(tmp_path / "report")]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["statistics"]["answers"] == 3
    assert report["statistics"]["answer_mass"] > 0
    assert "tie_rate" in json.dumps(report)
    (tmp_path / "criteria.toml").write_text(
        f'template = "criteria"\n[writer]\nname = "own"\nmodel = "{directory}"\n'
    )
    command = ["critique", str(tmp_path / "criteria.toml"), str(tmp_path / "rows.jsonl")]
    assert main([*command, "--output", str(tmp_path / "kept.jsonl")]) == 0
    assert "1 rows with rubrics" in capsys.readouterr().err
    [line] = (tmp_path / "kept.jsonl").read_text().splitlines()
    assert json.loads(line)["meta"]["rubric"] == RUBRIC
