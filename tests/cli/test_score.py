"""`basereward score`, with a tiny random model."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import tiny
from rounding import TINY_REWARD

from basereward import Comparison, RewardModel, cli
from basereward.config import Component

if TYPE_CHECKING:
    from pathlib import Path

RESPONSES = ["a cat sits", "a dog runs on the red mat", "[bold]a bird[/bold]"]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    tiny.image(84, 56).save(path)
    return path


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return the one line that a command ends with, which did nothing else."""
    assert cli.main(["score", *map(str, arguments)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    [line] = shown.err.splitlines()
    return line.removeprefix("basereward: error: ")


def of_prompt(image: Path) -> list[str]:
    arguments = ["--image", str(image), "--prompt", "what is shown?"]
    return [*arguments, *(part for response in RESPONSES for part in ("--response", response))]


def test_responses_are_printed_best_first(
    model_dir: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = Comparison("what is shown?", RESPONSES, images=[image])
    [rewards] = RewardModel.load(model_dir).score([comparison])
    capsys.readouterr()  # transformers has shown a bar
    assert cli.main(["score", str(model_dir), *of_prompt(image)]) == 0
    shown = capsys.readouterr()
    rows = re.findall(r"^ *([+-][\d.]+)  (.*?) *$", shown.out, re.MULTILINE)
    expected = sorted(zip(rewards, RESPONSES, strict=True), reverse=True)
    assert rows == [(f"{reward:+.4f}", response) for reward, response in expected]
    assert shown.err == ""


def test_json_keeps_the_order_of_the_responses(
    model_dir: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = Comparison("what is shown?", RESPONSES, images=[image])
    [rewards] = RewardModel.load(model_dir).score([comparison])
    assert cli.main(["score", str(model_dir), *of_prompt(image), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rewards"] == pytest.approx(rewards, abs=TINY_REWARD)


def test_a_file_is_scored_as_each_row_alone_and_resumed_to_the_bit(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = []
    for number in range(40):
        tiny.image(56, 28 * (1 + number % 3), number).save(tmp_path / f"{number}.png")
        responses = [tiny.sentence(number * 10 + offset, 1 + 2 * offset) for offset in range(1 + number % 3)]
        images = [f"{number}.png"] if number % 4 else []
        rows.append(
            {"prompt": tiny.sentence(number, 3 + number % 11), "images": images, "responses": responses}
        )
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [
        "score",
        str(model_dir),
        "--input",
        str(source),
        "--output",
        str(target),
        "--batch-size",
        "2",
    ]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[-1] == "40 rows scored, 0 with an error"
    whole = target.read_bytes()
    found = [json.loads(line)["rewards"] for line in whole.splitlines()]
    model = RewardModel.load(model_dir)
    for row, rewards in zip(rows, found, strict=True):
        images = [tmp_path / name for name in row["images"]]
        [alone] = model.score([Comparison(row["prompt"], row["responses"], images=images)])
        assert rewards == pytest.approx(alone, abs=TINY_REWARD)

    target.write_bytes(whole[: len(whole) * 9 // 10])
    assert cli.main([*arguments, "--resume", "--quiet"]) == 0
    assert target.read_bytes() == whole
    assert capsys.readouterr().err == ""


def test_an_image_that_cannot_be_opened_is_an_error_in_its_row(
    model_dir: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.png").write_bytes(image.read_bytes()[:200])
    rows = [
        {"id": name, "prompt": "p", "images": [f"{name}.png"], "responses": ["a"]} for name in ("cut", "cat")
    ]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["score", str(model_dir), "--input", str(source), "--quiet"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    reason = f"images: {tmp_path}/cut.png is cut short or damaged"
    assert first == {"line": 1, "id": "cut", "error": reason}
    assert (second["line"], second["id"], len(second["rewards"])) == (2, "cat", 1)


def test_a_file_is_read_by_a_dataset_and_its_options(
    model_dir: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows").mkdir()
    source = tmp_path / "rows" / "in.jsonl"
    row = {"better": "a cat", "worse": "a dog", "asked": "what?", "shown": ["../cat.png"]}
    source.write_text(json.dumps(row) + "\n")
    options = {"prompt_key": "asked", "chosen_key": "better", "rejected_key": "worse", "images_key": "shown"}
    options["media_roots"] = f"['{tmp_path}']"
    arguments = [part for key, value in options.items() for part in ("--option", f"{key}={value}")]
    command = ["score", str(model_dir), "--input", str(source), "--dataset", "openrlhf", *arguments]
    assert cli.main([*command, "--quiet"]) == 0
    comparison = Comparison("what?", ["a cat", "a dog"], images=[image])
    [expected] = RewardModel.load(model_dir).score([comparison])
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["rewards"] == pytest.approx(expected, abs=TINY_REWARD)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --prompt with --response, or --input"),
        (["--prompt", "p", "--input", "f"], "give either --prompt with --response, or --input"),
        (["--prompt", "p"], "give at least one --response"),
        (
            ["--prompt", "p", "--response", "a", "--output", "f"],
            "--output, --resume and --overwrite go with --input, not with --prompt",
        ),
        (
            ["--input", "f", "--response", "a"],
            "--response, --image and --json go with --prompt, not with --input",
        ),
        (
            ["--prompt", "p", "--response", "a", "--dataset", "trl"],
            "--dataset, --option and --on-bad-row go with --input, not with --prompt",
        ),
        (["--input", "none.jsonl"], "--input none.jsonl: there is no such file"),
        (["--prompt", "p", "--response", " "], "responses[0]: is empty"),
        (
            ["--prompt", "<image>", "--response", "a"],
            "images: the prompt has 1 <image> placeholder and the row 0 images",
        ),
        (
            ["--prompt", "p", "--response", "a", "--batch-size", "0"],
            "--batch-size is a number of comparisons >= 1, not 0",
        ),
        (
            ["--prompt", "p", "--response", "a", "--image", "none.png"],
            "images: can't read none.png: No such file or directory",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_two(
    model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert error(capsys, model_dir, *arguments) == message


def test_a_device_that_is_not_there_is_an_error(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for device in ("nonsense", "cuda:99"):
        line = error(capsys, model_dir, "--prompt", "p", "--response", "a", "--device", device)
        assert line.startswith(f"device {device}: ")


def test_an_output_that_exists_is_refused_before_the_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("in.jsonl", "out.jsonl"):
        (tmp_path / name).write_text("{}\n")
    arguments = ("--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    assert error(capsys, tmp_path / "no-model", *arguments) == (
        f"{tmp_path}/out.jsonl exists; --resume continues it, --overwrite replaces it"
    )


def test_what_is_no_model_directory_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert error(capsys, tmp_path, "--prompt", "p", "--response", "a") == (
        f"{tmp_path} is no model directory: it has no reward_config.json"
    )


def test_responses_that_were_cut_are_counted(
    tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = {"model": str(tiny_models["llama"]), "on_long": "truncate"}
    model = RewardModel.build(backbone=Component("causal-lm", backbone))
    prompt = len(model.backbone.encode(Comparison("what?", ["a"])).prompt)
    model = RewardModel.build(backbone=Component("causal-lm", {**backbone, "max_tokens": prompt + 4}))
    model.save(tmp_path / "model")
    responses = ["--response", "a", "--response", "a dog runs on the red mat"]
    assert cli.main(["score", str(tmp_path / "model"), "--prompt", "what?", *responses]) == 0
    assert "1 response was cut short to fit max_tokens\n" in capsys.readouterr().err


def test_a_full_disk_is_one_line(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "what?", "responses": ["a cat"]}) + "\n")
    # A device that is always full, reached as a user's redirection would be.
    (tmp_path / "full.jsonl").symlink_to("/dev/full")
    arguments = [
        "--input",
        tmp_path / "rows.jsonl",
        "--output",
        tmp_path / "full.jsonl",
        "--overwrite",
        "--quiet",
    ]
    assert "No space left on device" in error(capsys, model_dir, *arguments)
