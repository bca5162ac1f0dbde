"""`basereward evaluate` with a benchmark, with baselines, and with two models against each other."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import hub_benchmarks
import pytest
import tiny
from layouts import write_lines
from PIL import Image as Pillow

from basereward import cli


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return MM-RLHF-RewardBench's layout: six questions of two pairs each, in two categories."""
    rows = []
    for number in range(6):
        path = f"{'mcq' if number % 2 else 'long'}/{number}.png"
        file = tmp_path / "bench" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        tiny.image(56, 56, number).save(file)
        for offset in range(2):
            long, short = tiny.sentence(20 * number + offset, 9), tiny.sentence(20 * number + 10 + offset, 2)
            chosen, rejected = (long, short) if number < 4 else (short, long)
            rows.append(
                {"id": f"{number}", "image": path, "prompt": "what?", "chosen": chosen, "rejected": rejected}
            )
    return write_lines(tmp_path / "bench" / "mm_reward_bench.jsonl", rows).parent


BENCHMARK = ["--benchmark", "mm-rlhf-rewardbench", "--quiet", "--data"]


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main(["evaluate", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def lines_joined(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    return " ".join(shown(capsys, *arguments).split())


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main(["evaluate", *map(str, arguments)]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    [line] = found.err.splitlines()
    return line.removeprefix("basereward: error: ")


def test_table_json_markdown_and_page_have_the_same_numbers(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, file = tmp_path / "report", tmp_path / "out.json"
    table = shown(capsys, "longest", "random", *BENCHMARK, data, "--output", output, "--json", file)
    whole = json.loads(file.read_text())
    # The longer response is right in four of the six questions, that is in 8 of 12 pairs.
    scores = whole["models"]["longest"]["scores"]
    assert (scores["Acc"]["value"], scores["Acc"]["num"]) == (pytest.approx(8 / 12), 12)
    assert scores["Acc+"]["value"] == scores["Acc+"]["longer_baseline"] == pytest.approx(4 / 6)
    assert whole["num_comparisons"] == 12
    assert whole["official_size"] == 170
    assert json.loads((output / "report.json").read_text()) == whole
    cell = f"66.67 ({100 * scores['Acc']['low']:.1f} to {100 * scores['Acc']['high']:.1f})"
    for text in (table, (output / "report.md").read_text(), (output / "report.html").read_text()):
        assert cell in text
        assert "equal rewards count as wrong" in text
        assert "The file has 12 comparisons, the published benchmark 170." in text
    assert "BaseReward (Qwen2.5-VL)" not in table
    whole_table = shown(capsys, "longest", "random", "--published", *BENCHMARK, data)
    for text in (whole_table, (output / "report.md").read_text(), (output / "report.html").read_text()):
        assert "BaseReward (Qwen2.5-VL)" in text
        assert "95.24*" in text
        assert "Printed: Acc mcq 95.74, Acc long 97.38, Acc short 94.13." in " ".join(text.split())
    for name in ("longest", "random"):
        assert len((output / name / "rewards.jsonl").read_text().splitlines()) == 12


@pytest.mark.usefixtures("drawn_figures")
def test_the_page_needs_no_other_file_and_shows_every_plot(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(capsys, "longest", "random", *BENCHMARK, data, "--output", tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert not re.findall(r"<script[^>]|<link|src=\"(?!data:)|href=", page)
    names = re.findall(r'alt="([^"]+)" src="data:image/png', page)
    each = ["accuracy_by_category", "accuracy_by_length", "calibration", "margins"]
    assert names == ["scores", *each, *each]
    for encoded in re.findall(r'src="data:image/png;base64,([^"]+)"', page):
        with Pillow.open(BytesIO(base64.b64decode(encoded))) as image:
            assert len(image.convert("L").getcolors()) > 2


def test_a_row_that_cannot_be_read_is_named_and_counted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (data / "mm_reward_bench.jsonl").open("a") as file:
        file.write('{"id": "bad"}\n')
    output = tmp_path / "report"
    assert cli.main(["evaluate", "longest", *BENCHMARK, str(data), "--output", str(output)]) == 0
    found = capsys.readouterr()
    assert "Rows of the file that could not be read: 1; they are in no number." in found.out
    assert found.err.splitlines()[0] == (
        f"1 row was rejected, the first: {data}/mm_reward_bench.jsonl:13: image: is missing; "
        f"all in {output}/longest/rejected.jsonl"
    )
    assert error(capsys, "longest", *BENCHMARK, data, "--on-bad-row", "fail") == (
        f"{data}/mm_reward_bench.jsonl:13: image: is missing"
    )


def test_json_without_a_file_is_all_that_is_printed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.loads(shown(capsys, "longest", *BENCHMARK, data, "--json"))
    assert list(whole["models"]) == ["longest"]


def test_an_annotation_file_alone_is_enough_for_a_judge_but_not_for_a_model(
    model_dir: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for image in data.rglob("*.png"):
        image.unlink()
    whole = json.loads(shown(capsys, "longest", *BENCHMARK, data, "--json"))
    assert whole["models"]["longest"]["num_unscored"] == 0
    assert error(capsys, model_dir, *BENCHMARK, data).startswith(
        "there is nothing to evaluate: no pair of responses has a known order; 12 rows were rejected, "
        "the first: "
    )


def test_a_model_stands_beside_judges_and_unscored_comparisons_are_left_out_of_its_numbers_only(
    model_dir: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "long" / "0.png").unlink()
    assert cli.main(["evaluate", "longest", str(model_dir), *BENCHMARK, str(data), "--json"]) == 0
    found = capsys.readouterr()
    models = json.loads(found.out)["models"]
    assert [models[name]["num_unscored"] for name in ("longest", str(model_dir))] == [0, 2]
    assert [models[name]["scores"]["Acc"]["num"] for name in ("longest", str(model_dir))] == [12, 10]
    # The longer response's score is that of the same ten pairs.
    assert models[str(model_dir)]["scores"]["Acc"]["longer_baseline"] == pytest.approx(6 / 10)
    assert f"{model_dir}: 2 of 12 comparisons could not be scored" in lines_joined(
        capsys, "longest", model_dir, *BENCHMARK, data
    )


@pytest.fixture(scope="module")
def mute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a judge that reasons in two tokens, which are no verdict."""
    from basereward import RewardModel
    from basereward.config import Component

    place = tmp_path_factory.mktemp("mute")
    model = tiny.add_language_head(tiny.save_qwen_vl(place / "qwen"))
    judge = RewardModel.build(
        backbone=Component("qwen-vl", {"model": str(model)}),
        paradigm=Component("generative", {"template": "reasoned", "max_answer_tokens": 2}),
    )
    judge.save(place / "judge")
    return place / "judge"


def test_a_judge_that_asks_a_writer_has_that_report_too(
    mute: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = tmp_path / "judge.toml"
    lines = [
        'template = "reasoned"',
        "max_answer_tokens = 2",
        "[writer]",
        'name = "own"',
        'backbone = "qwen-vl"',
    ]
    judge.write_text("\n".join([*lines, f'model = "{mute.parent / "qwen"}"']) + "\n")
    table = shown(capsys, judge, "longest", *BENCHMARK, data)
    assert "of its answers 100.0 % could not be read, so nothing has rewards" in " ".join(table.split())


def test_a_judge_without_a_readable_verdict_has_a_report_that_says_so(
    mute: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report"
    table = shown(
        capsys, mute, "longest", *BENCHMARK, data, "--output", output, "--json", tmp_path / "out.json"
    )
    note = (
        f"{mute}: of its answers 100.0 % could not be read, so nothing has rewards; the numbers are those of "
        "the protocols that count this."
    )
    assert note in " ".join(table.split())
    whole = json.loads((tmp_path / "out.json").read_text())
    judge, longest = whole["models"][str(mute)], whole["models"]["longest"]
    # A text without a verdict counts as one for the second response, which is the worse one.
    assert judge["scores"]["Acc, R1-Reward's judge protocol"]["value"] == 0.0
    assert "Acc" not in judge["scores"]
    assert longest["scores"]["Acc"]["num"] == 12
    assert (judge["num_unscored"], longest["num_unscored"]) == (12, 0)
    assert judge["metrics"]["statistics"]["parse_failure_rate"] == 1.0
    assert judge["metrics"]["statistics"]["answers"] == 24  # both orders of twelve pairs
    [folder] = [path.parent for path in output.glob("*/verdicts.jsonl")]
    assert (folder / "rewards.jsonl").read_text() == ""
    assert len((folder / "verdicts.jsonl").read_text().splitlines()) == 12
    assert "No comparison has rewards: no verdict could be read" in (folder / "report.md").read_text()
    assert json.loads((folder / "report.json").read_text())["statistics"]["parse_failure_rate"] == 1.0
    assert "of its answers 100.0 % could not be read" in (output / "report.html").read_text()


def test_a_benchmark_without_a_protocol_for_it_has_no_number_and_a_report(
    mute: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub_benchmarks.rewardbench(tmp_path / "bench")
    arguments = ["--benchmark", "rewardbench", "--quiet", "--data", tmp_path / "bench"]
    table = shown(capsys, mute, *arguments, "--output", tmp_path / "report")
    assert "no protocol of this benchmark counts that, and it has no number." in " ".join(table.split())
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["models"][str(mute)]["scores"] == {}
    assert (tmp_path / "report" / "report.html").is_file()


def test_two_models_are_compared_live_or_from_what_was_saved(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live = json.loads(shown(capsys, "--compare", "longest", "shortest", *BENCHMARK, data, "--json"))
    acc = live["differences"]["Acc"]
    # 8 of 12 against 4 of 12; all pairs differ.
    assert (acc["difference"], acc["only_first"], acc["only_second"]) == (pytest.approx(4 / 12), 8, 4)
    assert acc["low"] <= acc["difference"] <= acc["high"]
    # 2 * (1 + 12 + 66 + 220 + 495) / 4096
    assert acc["p"] == pytest.approx(2 * 794 / 4096)

    output = tmp_path / "report"
    shown(capsys, "longest", "shortest", *BENCHMARK, data, "--output", output)
    saved = (output / "longest", output / "shortest")
    again = json.loads(shown(capsys, "--compare", *saved, *BENCHMARK, data, "--json"))
    mixed = json.loads(shown(capsys, "--compare", saved[0], "shortest", *BENCHMARK, data, "--json"))
    assert again["differences"] == mixed["differences"] == live["differences"]
    alone = json.loads(shown(capsys, "--compare", *saved, "--json"))
    assert alone["differences"]["pair accuracy"]["difference"] == pytest.approx(4 / 12)
    table = shown(capsys, "--compare", *saved, "--output", tmp_path / "difference")
    assert "+33.33" in table
    assert (
        json.loads((tmp_path / "difference" / "compare.json").read_text())["differences"]
        == alone["differences"]
    )


def test_a_directory_comes_before_the_baseline_of_its_name(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "longest").mkdir()
    monkeypatch.chdir(tmp_path)
    assert error(capsys, "longest", *BENCHMARK, data) == (
        "longest is no model directory: it has no reward_config.json"
    )


def test_baselines_evaluate_and_score_any_data_without_torch(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "responses": ["aa", "b"], "ranks": [0, 1], "images": []}]
    write_lines(tmp_path / "own.jsonl", rows)
    code = (
        "import sys; from basereward import cli; "
        "assert cli.main(['evaluate', 'longest', '--data', 'own.jsonl', '--json', '--quiet']) == 0; "
        "assert cli.main(['score', 'shortest', '--input', 'own.jsonl', '--quiet']) == 0; "
        "assert cli.main(['score', 'random', '--prompt', 'p', '--response', 'a', '--json']) == 0; "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    evaluated, scored, one = map(json.loads, done.stdout.splitlines())
    assert evaluated["accuracy"] == 1
    assert scored == {"line": 1, "rewards": [-2.0, -1.0]}
    assert len(one["rewards"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a model directory or a baseline (longest, shortest, first, random), or --compare A B"),
        (["longest", "random"], "2 models go with --benchmark NAME; without one, give one model"),
        (["longest", "longest", *BENCHMARK, "x"], "a model is named twice; once is enough"),
        (
            ["longest", "--benchmark", "multimodal-rewardbench"],
            "benchmark multimodal-rewardbench is not on the hub; write --benchmark "
            "multimodal-rewardbench=PATH, where it lies",
        ),
        (["longest", *BENCHMARK, "x"], "x: no such file"),
        (
            ["longest", "--data", "x", "--benchmark", "vl-rewardbenc"],
            "unknown benchmark 'vl-rewardbenc'; did you mean 'vl-rewardbench'? benchmarks: "
            "comparisons, mm-rlhf-rewardbench, multimodal-rewardbench, multimodal-rewardbench2, "
            "omni-rewardbench, rewardbench, rewardbench2, rm-bench, videorewardbench, visualprocessbench, "
            "vl-rewardbench, vlrmbench",
        ),
        (
            ["longest", *BENCHMARK, "x", "--dataset", "trl"],
            "--benchmark reads its data itself; leave out --dataset",
        ),
        (
            ["longest", *BENCHMARK, "{data}", "--option", "num_frames=0"],
            "benchmark 'mm-rlhf-rewardbench': num_frames is a number of frames >= 1, not 0",
        ),
        (
            ["longest", *BENCHMARK, "{data}", "--option", "frames=3"],
            "benchmark 'mm-rlhf-rewardbench' has no option 'frames'; did you mean 'num_frames'? "
            "options: images, num_frames",
        ),
        (
            ["random:x", *BENCHMARK, "{data}"],
            "no baseline 'random:x'; baselines: longest, shortest, first, random, and random:SEED",
        ),
        (["--compare", "a", "b", "--gaps", "1"], "--gaps does not go with --compare"),
        (["--compare", "a", "b", "c"], "--compare takes the two models itself; leave out the others"),
        (
            ["--compare", "longest", "random"],
            "longest is no saved evaluation (a directory with rewards.jsonl); for a model, give --data PATH "
            "too",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_two(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert error(capsys, *(argument.format(data=data) for argument in arguments)) == message


def test_several_benchmarks_have_a_report_each_and_one_table(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub_benchmarks.rewardbench(tmp_path / "bench-2")
    arguments = [f"--benchmark=mm-rlhf-rewardbench={data}", f"--benchmark=rewardbench={tmp_path / 'bench-2'}"]
    output, file = tmp_path / "report", tmp_path / "out.json"
    table = shown(capsys, "longest", "random", *arguments, "--quiet", "--output", output, "--json", file)
    whole = json.loads(file.read_text())["benchmarks"]
    for name in ("mm-rlhf-rewardbench", "rewardbench"):
        assert json.loads((output / name / "report.json").read_text()) == whole[name]
        assert (output / name / "report.html").is_file()
    *_, titles, longest, random = table.splitlines()
    assert titles.split() == ["model", "mm-rlhf-rewardbench", "rewardbench"]
    scores = [whole[name]["models"]["longest"]["scores"] for name in titles.split()[1:]]
    official = [scores[0]["Acc"]["value"], scores[1]["overall"]["value"]]
    assert longest.split() == ["longest", *(f"{100 * value:.2f}" for value in official)]
    assert random.startswith("random ")


def test_the_first_comparisons_are_no_number_of_the_benchmark(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = shown(capsys, "longest", *BENCHMARK, data, "--limit", 8)
    # Of the first eight pairs, those of four questions, the longer response is the better one of each.
    assert re.search(r"^Acc +longest +100\.00 .* 8 pairs", table, re.MULTILINE)
    assert "Only the first 8 comparisons were scored: no number of the whole benchmark." in table
    assert "the published benchmark" not in table


def test_a_benchmark_is_read_from_the_hub_where_no_path_is_given(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "yifanzhang114" / "MM-RLHF-RewardBench"  # a path goes before the hub's id
    there.parent.mkdir()
    data.rename(there)
    assert "12 pairs" in shown(capsys, "longest", "--benchmark", "mm-rlhf-rewardbench", "--quiet")
