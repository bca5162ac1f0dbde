"""`basereward ensemble`, and the commands that use what it makes as they use a model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import ensembles
import pytest
from rounding import TINY_REWARD

from basereward import Ensemble, RewardModel, cli, load_model
from basereward.config import Component
from basereward.evaluation import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable

NUM_ROWS = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with models, an ensemble of two, and pairs to fit and to judge them on."""
    place = ensembles.save(tmp_path_factory.mktemp("place"))
    with (place / "pairs.jsonl").open("w") as file:
        for pair in ensembles.pairs(NUM_ROWS):
            file.write(json.dumps(pair.to_dict()) + "\n")
    Ensemble.of([place / "a", place / "text"]).save(place / "both")
    return place


@pytest.fixture
def run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, str]]:
    """Return a function that runs a command in the directory and returns what it printed."""
    monkeypatch.chdir(place)

    def run(*arguments: str, status: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        assert cli.main(arguments) == status
        shown = capsys.readouterr()
        return shown.out, shown.err.removeprefix("basereward: error: ").strip()

    return run


def test_an_ensemble_is_made_and_says_what_its_members_are_like(
    run: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    output = tmp_path / "made"
    arguments = ["--ensembler", "z-mean", "--fit", "pairs.jsonl", "--fit-rows", "10", "-o", str(output)]
    out, err = run("ensemble", "a", "other", *arguments, "--quiet")
    made = load_model(output)
    assert isinstance(made, Ensemble)
    assert made.record["fit_data"] == "pairs.jsonl"
    assert made.record["fit"].items() >= {"num_comparisons": 10, "num_left_out": 0}.items()
    title, first, second, last = out.splitlines()
    assert title.split() == ["member", "accuracy", "scale", "weight"]
    assert made.state is not None
    for line, (name, own), weight in zip(
        (first, second), made.measured.items(), made.state["weights"], strict=True
    ):
        assert line.split() == [name, f"{own.accuracy:.3f}", f"{own.scale:.3g}", f"{weight:.3g}"]
    assert (last, err) == (f"ensemble: {output}", "")


def test_rows_to_fit_on_are_drawn_by_the_seed(run: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    means = []
    for number, seed in enumerate(("1", "1", "2")):
        output = str(tmp_path / str(number))
        _, err = run(
            *("ensemble", "a", "--fit", "pairs.jsonl", "--fit-rows", "4", "--seed", seed, "-o", output)
        )
        assert err.splitlines()[-1] == "fitted on 4 comparisons"
        made = load_model(output)
        assert isinstance(made, Ensemble)
        means.append(made.measured["a"].mean)
    assert means[0] == means[1] != means[2]


def test_options_of_the_ensembler_are_set(run: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    output = str(tmp_path / "made")
    given = ("--ensembler", "mean-minus-std", "--set", "coefficient=0.25", "--output", output)
    run("ensemble", "a", "other", *given)
    made = load_model(output)
    assert isinstance(made, Ensemble)
    assert made.component["options"] == {"coefficient": 0.25}
    run("ensemble", "a", "other", *given[:3], "ensembler.coefficient=2.0", *given[4:], "--overwrite")
    made = load_model(output)
    assert isinstance(made, Ensemble)
    assert made.component["options"] == {"coefficient": 2.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ensembler", "stacked"], "ensembler 'stacked' learns from comparisons; give --fit DATA"),
        (
            ["--ensembler", "men"],
            "unknown ensembler 'men'; did you mean 'mean'? ensemblers: accuracy-weighted, "
            "confidence-weighted, mean, mean-minus-std, median, min, rank-mean, routed, stacked, z-mean",
        ),
        (["--set", "coefficient=1"], "ensembler 'mean' has no option 'coefficient'; it has no options"),
        (
            ["--ensembler", "stacked", "--set", "l2=0.0", "--fit", "pairs.jsonl"],
            "ensembler 'stacked': l2 is a finite number > 0, not 0.0",
        ),
        (["--fit", "pairs.jsonl", "--fit-rows", "0"], "--fit-rows is a number of comparisons >= 1, not 0"),
        (["--batch-size", "0"], "--batch-size is a number of comparisons >= 1, not 0"),
        (["--output", "a"], "--output a exists; --overwrite replaces it"),
        (
            ["--quiet", "nowhere"],
            "member 'nowhere': nowhere is no model directory: it has no reward_config.json",
        ),
        (["--quiet", "./a"], "a is a member twice; once is enough"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    run: Callable[..., tuple[str, str]], arguments: list[str], message: str, tmp_path: Path
) -> None:
    output = tmp_path / "made"
    out, err = run("ensemble", "--output", str(output), *arguments, "a", status=2)
    assert (out, err) == ("", message)
    assert not output.exists()


def test_members_are_shown_beside_the_ensemble(run: Callable[..., tuple[str, str]]) -> None:
    given = ("score", "both", "--prompt", "p", "--response", "x", "--response", "yy")
    plain = json.loads(run(*given, "--json")[0])
    assert list(plain) == ["rewards", "device", "precision"]
    found = json.loads(run(*given, "--json", "--members")[0])
    assert list(found) == ["rewards", "members", "disagreement", "device", "precision"]
    for number in range(2):
        first, second = (found["members"][name][number] for name in ("a", "text"))
        assert found["rewards"][number] == pytest.approx((first + second) / 2, abs=TINY_REWARD)
        assert found["disagreement"][number] == pytest.approx(abs(first - second) / 2, abs=TINY_REWARD)
    out, _ = run(*given, "--members")
    best = found["rewards"].index(max(found["rewards"]))
    numbers = [found["rewards"], *found["members"].values(), found["disagreement"]]
    assert out.splitlines()[0].split() == ["reward", "a", "text", "disagreement", "response"]
    assert out.splitlines()[1].split() == [*(f"{column[best]:+.4f}" for column in numbers), ("x", "yy")[best]]


def test_members_of_a_single_model_are_an_error(run: Callable[..., tuple[str, str]]) -> None:
    _, err = run("score", "a", "--prompt", "p", "--response", "x", "--members", status=2)
    assert err == "--members goes with an ensemble; a is a single model"


def test_a_file_is_scored_with_its_members_and_errors(
    run: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    import tiny

    tiny.image().save(tmp_path / "x.png")
    rows = [
        {"prompt": "p", "responses": ["x", "y"]},
        {"prompt": "p", "images": ["x.png"], "responses": ["x"]},
    ]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("score", "both", "--input", str(source), "--output", str(target), "--members", "--quiet")
    first, second = map(json.loads, target.read_text().splitlines())
    assert list(first) == ["line", "rewards", "members", "disagreement"]
    assert list(first["members"]) == ["a", "text"]
    assert second == {
        "line": 2,
        "error": "images: member 'text': the model reads text only; take the images out of the row",
    }


def test_the_report_has_each_member_beside_the_ensemble(
    run: Callable[..., tuple[str, str]], place: Path, tmp_path: Path
) -> None:
    out, _ = run("evaluate", "both", "--data", "pairs.jsonl", "--output", str(tmp_path / "r"), "--quiet")
    report = json.loads((tmp_path / "r/report.json").read_text())
    accuracies = {}
    for name in ("a", "text"):
        alone = evaluate(RewardModel.load(place / name), ensembles.pairs(NUM_ROWS))
        accuracies[name] = alone.accuracy
        assert report["members"][name]["accuracy"] == alone.to_dict()["accuracy"]
    # A cell that is too long for 80 columns goes on below; what begins a row has a name in its first column.
    rows = [line for line in out.splitlines() if line[:20].strip()]
    shown = [[cell.strip() for cell in row.split("  ") if cell.strip()] for row in rows[:4]]
    assert [line[0] for line in shown] == [
        "pair accuracy",
        "member a",
        "member text",
        "members' disagreement",
    ]
    assert [line[1] for line in shown[1:3]] == [str(accuracies[name]) for name in ("a", "text")]
    assert shown[3][1] == f"{report['disagreement']:.3g}"
    assert "| – member a |" in (tmp_path / "r/report.md").read_text()
    out, _ = run("evaluate", "--compare", str(tmp_path / "r"), str(tmp_path / "r/members/a"))
    assert f"Of {NUM_ROWS} comparisons that both have scored; 0 are left out." in out


def test_a_benchmark_has_a_column_for_each_member(run: Callable[..., tuple[str, str]]) -> None:
    out, _ = run(
        "evaluate", "both", "--benchmark", "comparisons", "--data", "pairs.jsonl", "--quiet", "--json"
    )
    assert list(json.loads(out)["models"]) == ["both", "both: a", "both: text"]


def test_members_that_are_asked_about_a_part_are_judged_on_it(
    run: Callable[..., tuple[str, str]], place: Path, tmp_path: Path
) -> None:
    import tiny

    tiny.image().save(tmp_path / "x.png")
    rows = [pair.to_dict() for pair in ensembles.pairs(6)]
    for row in rows[:2]:
        row["images"] = ["x.png"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Ensemble.of([place / "a", place / "text"], Component("routed")).save(tmp_path / "routed")
    given = (str(tmp_path / "routed"), "--data", str(tmp_path / "rows.jsonl"), "--quiet", "--json")
    found = json.loads(run("evaluate", *given)[0])
    counts = {name: own["num_pairs"] for name, own in found["members"].items()}
    assert (found["num_pairs"], counts) == (6, {"a": 2, "text": 4})
    assert "disagreement" not in found
    found = json.loads(run("evaluate", *given, "--benchmark", "comparisons")[0])
    assert list(found["models"]) == [str(tmp_path / "routed")]


def test_files_are_scored_by_many_workers(run: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    run("score-shards", "both", "pairs.jsonl", "--output", str(tmp_path / "tables"), "--quiet")
    summary = json.loads((tmp_path / "tables/summary.json").read_text())
    assert (summary["num_rows"], summary["num_errors"]) == (NUM_ROWS, 0)


def test_scales_that_differ_are_warned_about_on_the_command_line(
    run: Callable[..., tuple[str, str]], place: Path, tmp_path: Path
) -> None:
    ensembles.enlarge(place / "other", tmp_path / "large", 1000.0)
    Ensemble.of([place / "a", tmp_path / "large"]).save(tmp_path / "mixed")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        _, err = run("evaluate", str(tmp_path / "mixed"), "--data", "pairs.jsonl", "--quiet")
    [warning] = err.splitlines()
    assert warning.startswith(
        "basereward: warning: the members' rewards are on different scales, so that under 'mean' those of "
        "large decide (standard deviation within comparisons: a "
    )


def test_rows_that_cannot_be_read_or_scored_are_counted(
    run: Callable[..., tuple[str, str]], place: Path, tmp_path: Path
) -> None:
    rows = [
        *(place / "pairs.jsonl").read_text().splitlines(),
        "{",
        '{"prompt": "p", "responses": ["x", "y"]}',
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    given = ("--fit", str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "made"))
    _, err = run("ensemble", "a", "--ensembler", "stacked", *given)
    rejected, *_, fitted = err.splitlines()
    assert rejected.startswith(f"1 row was rejected, the first: {tmp_path}/rows.jsonl:13:")
    assert fitted == f"fitted on {NUM_ROWS} comparisons, 1 left out"
