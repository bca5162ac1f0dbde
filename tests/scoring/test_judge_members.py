"""Judges that ask a server are members of ensembles, beside models of every paradigm."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ensembles
import pytest
import tiny
import torch
from judge_server import Fault, JudgeServer, serving
from rounding import TINY_REWARD

from basereward import Comparison, ConfigError, DataError, Ensemble, ModelError, RewardModel, load_model
from basereward.cli import main
from basereward.config import Component
from basereward.errors import ScaleWarning
from basereward.scoring.scorer import EnsembleRewards
from basereward.scoring.writer_judge import WriterJudge
from basereward.serving.engine import ModelEngine
from basereward.writers import http_sender

pytest.importorskip("httpx2")

RANKS = Component("rank-mean")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a model of each paradigm, all of texts, and one that sees."""
    root = ensembles.save(tmp_path_factory.mktemp("models"))
    torch.manual_seed(0)
    base = Component("causal-lm", {"model": str(tiny.add_language_head(tiny.save_causal_lm(root / "lmh")))})
    for name, paradigm in {
        "critic": Component("critic", {"max_critique_tokens": 4}),
        "verdict": Component("generative"),
        "fitted": Component("generative", {"aggregate": "bradley-terry"}),
        "pointwise": Component("pointwise"),
        "rubric": Component("pointwise", {"template": "rubric"}),
        "listwise": Component("listwise"),
    }.items():
        RewardModel.build(backbone=base, paradigm=paradigm).save(root / name)
    return root


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.setattr(http_sender, "FIRST_WAIT", 0.002)
    with serving(JudgeServer()) as running:
        yield running


@pytest.fixture
def judge(server: JudgeServer, tmp_path: Path) -> Path:
    path = tmp_path / "words.toml"
    path.write_text(f'max_pairs = 3\n[writer]\nname = "endpoint"\nurls = ["{server.url}"]\nin_flight = 2\n')
    return path


def rows(num: int = 5) -> list[Comparison]:
    """Return pairs of which the first response has a word more."""
    return [
        Comparison(f"question {at}", [f"two words {at}", f"two {at}"], ranks=[0, 1], id=f"row-{at}")
        for at in range(num)
    ]


def fitting() -> list[Comparison]:
    """Return pairs whose responses differ by a word more, none, or one less."""
    return [
        Comparison(
            tiny.sentence(at, 4),
            [tiny.sentence(2 * at, 2 + at % 3), tiny.sentence(2 * at + 1, 3)],
            ranks=[0, 1],
        )
        for at in range(1, 13)
    ]


SHARE = 1 / (1 + math.exp(-1.0))
"""The judge's: it is asked with the better response first, s(1), and second, 1 - s(-1)."""


def test_a_judge_of_a_server_is_a_member_like_a_model(models: Path, judge: Path) -> None:
    found = Ensemble.of([models / "text", judge], RANKS).score(rows())
    alone = RewardModel.load(models / "text").score(rows())
    for joined, (first, second) in zip(found, alone, strict=True):
        assert isinstance(joined, EnsembleRewards)
        assert joined.members["text"] == pytest.approx([first, second], abs=TINY_REWARD)
        assert joined.members["words"] == pytest.approx([SHARE, 1 - SHARE])
        # The judge ranks the first one best; so each mean rank is 1 and 0, or 1/2 and 1/2.
        assert joined == ([1.0, 0.0] if first > second else [0.5, 0.5])


def test_an_ensemble_with_a_judge_is_saved_with_its_questions_and_loaded_with_its_scores(
    models: Path, judge: Path, tmp_path: Path, server: JudgeServer
) -> None:
    ensemble = Ensemble.of([models / "text", judge, f"judge+{server.url}"], Component("z-mean"))
    port = server.url.split(":")[2].removesuffix("/v1")
    assert ensemble.members.names == ["text", "words", f"judge-127.0.0.1-{port}"]
    ensemble.fit(fitting())
    expected = ensemble.score(rows())
    ensemble.save(tmp_path / "ensemble")
    judge.unlink()
    loaded = load_model(tmp_path / "ensemble")
    assert isinstance(loaded, Ensemble)
    again = loaded.score(rows())
    assert again == expected
    assert [each.members for each in again] == [each.members for each in expected]
    assert [each.disagreement for each in again] == [each.disagreement for each in expected]
    assert loaded.judges["words"].settings.max_pairs == 3
    loaded.save(tmp_path / "ensemble")  # in its own place
    assert load_model(tmp_path / "ensemble").score(rows()) == expected


def test_an_altered_judge_of_a_saved_ensemble_is_named(models: Path, judge: Path, tmp_path: Path) -> None:
    Ensemble.of([models / "text", judge], RANKS).save(tmp_path / "ensemble")
    path = tmp_path / "ensemble/members/words/judge.toml"
    path.write_text(path.read_text().replace("max_pairs = 3", "max_pairs = 4"))
    with pytest.raises(ModelError) as error:
        load_model(tmp_path / "ensemble")
    assert str(error.value) == f"{path} is not the file that was saved: its SHA-256 differs"


def test_a_template_that_has_changed_since_is_named(
    models: Path, judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ensemble.of([models / "text", judge], RANKS).save(tmp_path / "ensemble")
    from basereward.paradigms.judge_template import JudgeTemplate

    monkeypatch.setattr(JudgeTemplate, "digest", "other")
    path = tmp_path / "ensemble/members/words/judge.toml"
    with pytest.raises(ModelError) as error:
        Ensemble.load(tmp_path / "ensemble")
    assert str(error.value) == (
        f"member 'words': {path}: its judge template is not the one it was saved with"
    )


def test_a_saved_ensemble_asks_another_machine_only_where_that_is_allowed(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = tmp_path / "far.toml"
    judge.write_text(
        '[writer]\nname = "endpoint"\nurls = ["https://judge.invalid/v1"]\nkey_variable = "SOME_KEY"\n'
    )
    monkeypatch.setenv("SOME_KEY", "secret")
    Ensemble.of([models / "text", judge], RANKS).save(tmp_path / "ensemble")
    with pytest.raises(ConfigError) as error:
        load_model(tmp_path / "ensemble")
    assert str(error.value) == (
        "member 'far': it asks judge.invalid with the key in $SOME_KEY, as whoever saved the ensemble chose; "
        "let prompts, responses and images go there by --allow-upload, in Python by "
        'writer_options={"allow_upload": True}'
    )
    allowed = load_model(tmp_path / "ensemble", writer_options={"allow_upload": True})
    assert isinstance(allowed, Ensemble)
    assert list(allowed.judges) == ["far"]


def test_a_question_without_an_answer_is_the_judges_error(
    models: Path, judge: Path, server: JudgeServer
) -> None:
    server.faults = lambda number, body: (
        Fault(400, b'{"error": {"message": "no"}}') if "question 1" in json.dumps(body) else None
    )
    found = [result for _, result in Ensemble.of([models / "text", judge], RANKS).score_stream(rows(3))]
    assert [isinstance(result, DataError) for result in found] == [False, True, False]
    assert str(found[1]) == (
        "judge: member 'words': the judge has not answered 2 of 2 questions, the first: "
        f"{server.url} answers 400: 'no'"
    )


def test_where_rules_route_a_judge_of_pairs_is_not_asked_about_one_response(
    models: Path, judge: Path
) -> None:
    alone = [Comparison("p", ["only one"])]
    routed = Component("routed", {"on_text": "all"})
    names = ("text", "verdict", "listwise")
    with pytest.warns(ScaleWarning, match="different units"):
        ensemble = Ensemble.of([*(models / name for name in names), judge], routed)
    [one] = ensemble.score(alone)
    assert list(one.members) == ["text"]
    [two] = ensemble.score(rows(1))
    assert list(two.members) == [*names, "words"]
    # Where nobody can answer, the first says why.
    [(_, error)] = Ensemble.of([models / "verdict", judge], routed).score_stream(alone)
    assert str(error) == "responses: member 'verdict': a judge compares responses; there is only one"
    # Other ensemblers ask all: a mean over fewer members would be another reward.
    [(_, error)] = Ensemble.of([models / "text", models / "verdict"], RANKS).score_stream(alone)
    assert str(error) == "responses: member 'verdict': a judge compares responses; there is only one"


def test_members_of_different_units_are_warned_about(models: Path, judge: Path) -> None:
    names = ("text", "critic", "listwise", "fitted", "verdict", "pointwise", "rubric")
    with pytest.warns(ScaleWarning) as caught:
        Ensemble.of([*(models / name for name in names), judge])
    [warning] = caught
    assert str(warning.message) == (
        "the members' rewards have different units (text: unbounded; critic: unbounded; listwise: unbounded; "
        "fitted: unbounded; verdict: win shares, 0 to 1; pointwise: ratings, 1 to 5; rubric: rubric shares, "
        "at most 1; words: win shares, 0 to 1), and 'mean' takes them as they are; z-mean, rank-mean and "
        "stacked count all alike"
    )
    Ensemble.of([models / name for name in names[:4]])  # warns of nothing
    Ensemble.of([models / "verdict", judge])
    Ensemble.of([models / "text", judge], Component("stacked"))


def test_fitted_members_of_any_paradigm_count_alike(models: Path, judge: Path) -> None:
    names = ("text", "verdict", "pointwise", "listwise")
    ensemble = Ensemble.of([*(models / name for name in names), judge], Component("z-mean"))
    ensemble.fit(fitting())
    [found] = ensemble.score(rows(1))
    scales = {name: measured.scale for name, measured in ensemble.measured.items()}
    # The margin of the mean is the mean over members of margin / scale, times the mean scale.
    margins = [found.members[name][0] - found.members[name][1] for name in scales]
    each = [margin / scale for margin, scale in zip(margins, scales.values(), strict=True)]
    expected = sum(each) / len(each) * sum(scales.values()) / len(scales)
    assert found[0] - found[1] == pytest.approx(expected, abs=10 * TINY_REWARD)


def test_judges_are_asked_about_many_at_once_and_models_as_the_batch_says(
    models: Path, judge: Path, server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = Ensemble.of([models / "text", judge], RANKS)
    sizes = []
    model = ensemble.models[0]
    original = model.score_prepared

    def count(batch: Any) -> Any:
        sizes.append(len(batch))
        return original(batch)

    monkeypatch.setattr(model, "score_prepared", count)
    server.faults = lambda number, body: Fault(seconds=0.02)
    ensemble.score(rows(4), batch_size=1)
    # Two in flight, so that 4 comparisons, with 2 questions each, are asked about together.
    assert ensemble.smallest_batch == 4
    assert (sizes, server.most_in_flight) == ([1, 1, 1, 1], 2)


@pytest.fixture
def saved(models: Path, judge: Path, tmp_path: Path) -> Path:
    Ensemble.of([models / "text", judge], RANKS).save(tmp_path / "ensemble")
    return tmp_path / "ensemble"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row.to_dict()) + "\n" for row in rows()))
    return path


Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(each) for each in arguments]) == 0
        return capsys.readouterr().out

    return run


def test_commands_take_it_where_they_take_a_model(saved: Path, data: Path, tmp_path: Path, run: Run) -> None:
    expected = load_model(saved).score(rows())
    run("score", saved, "--input", data, "--output", tmp_path / "out.jsonl", "--members", "--quiet")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["rewards"] for line in lines] == expected
    assert all(line["members"]["words"] == pytest.approx([SHARE, 1 - SHARE]) for line in lines)
    report = json.loads(run("evaluate", saved, "--data", data, "--quiet", "--json"))
    assert (report["members"]["words"]["accuracy"], report["num_pairs"]) == (1.0, 5)
    run("filter", saved, data, "--output", tmp_path / "kept.jsonl", "--quiet")
    agreed = [row.to_dict() for row, (first, second) in zip(rows(), expected, strict=True) if first > second]
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == len(agreed)
    run("best-of-n", saved, data, "--output", tmp_path / "best.jsonl", "--quiet")
    assert len((tmp_path / "best.jsonl").read_text().splitlines()) == 5


def test_a_dry_run_counts_the_questions_of_each_judge(
    saved: Path, data: Path, run: Run, server: JudgeServer
) -> None:
    out = run("evaluate", saved, "--data", data, "--dry-run", "--quiet")
    counts = dict(re.findall(r"^words (\w+(?: \w+)?) +([\d.]+)$", out, re.MULTILINE))
    assert (counts["comparisons"], counts["requests"]) == ("5", "10")
    assert server.asked == []


def test_the_command_makes_and_fits_one(
    models: Path, judge: Path, data: Path, tmp_path: Path, run: Run
) -> None:
    out = run(
        *("ensemble", models / "text", judge, "--ensembler", "stacked", "--fit", data),
        *("--output", tmp_path / "made", "--quiet"),
    )
    title, text, words, _ = out.splitlines()
    assert title.split() == ["member", "accuracy", "scale", "weight"]
    assert (text.split()[0], words.split()[:2]) == ("text", ["words", "1.000"])
    assert isinstance(load_model(tmp_path / "made"), Ensemble)


def test_a_server_serves_it(saved: Path) -> None:
    engine = ModelEngine.load("both", saved)
    [result] = engine.score([engine.prepare(rows(1)[0])])
    assert result.members["words"] == pytest.approx([SHARE, 1 - SHARE])  # type: ignore[union-attr]
    judge = load_model(saved).judges["words"]  # type: ignore[union-attr]
    assert isinstance(judge, WriterJudge)
    assert judge.template.digest in engine.template_digest
