"""A dry run of every recipe finds nothing wrong, and finds what would fail later, without starting it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from imported_models import import_models

from basereward.cli import main
from basereward.extras import install_command

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = [path.relative_to(RECIPES.parent).as_posix() for path in sorted(RECIPES.rglob("*.toml"))]
STUDIES = [path for path in FILES if "[axes" in (RECIPES.parent / path).read_text(encoding="utf-8")]
RUN_FILES = [path for path in FILES if path not in STUDIES and "/rl/" not in path]


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each finding stand on one line, however long it is."""
    monkeypatch.setenv("COLUMNS", "10000")


@pytest.mark.parametrize("path", ["recipes/basereward-7b.toml", "recipes/two-stage-7b.toml"])
def test_a_run_file_would_start(path: str, cwd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(cwd.rglob("*"))
    assert main(["train", path, "--dry-run", "--overwrite", "--gpus", "8", "--gpu", "h100"]) == 0
    printed = capsys.readouterr().out
    assert "all of it would start" in printed
    assert "memory of 8 x H100" in printed
    assert sorted(cwd.rglob("*")) == before


@pytest.mark.parametrize("name", [pytest.param("table-1", marks=pytest.mark.external), "table-7"])
@pytest.mark.usefixtures("reinforced_judge")
def test_a_study_would_start(name: str, cwd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["study", f"recipes/studies/{name}.toml", "--dry-run"])
    printed = capsys.readouterr().out
    assert (status, "all of it would start" in printed) == (0, True), printed
    assert "benchmark vl-rewardbench, asked of the model" in printed
    # Each kind of model tokenizes the rows in its own way.
    rows = {line for line in printed.splitlines() if "data.train.0" in line and "tokens a row" in line}
    assert len(rows) > 1


@pytest.mark.slow
@pytest.mark.parametrize("path", [*RUN_FILES, *STUDIES])
@pytest.mark.usefixtures("reinforced_judge")
def test_every_recipe_would_start(path: str, cwd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["study", path] if path in STUDIES else ["train", path, "--overwrite"]
    if "public-models" in path:
        assert main([*arguments, "--dry-run"]) == 1  # the models are not imported yet
        assert "models/r1-reward" in capsys.readouterr().out
        import_models(Path(path))
    if "qlora" in path:
        arguments += ["--set", "backbone.model=tiny/wide"]
    assert main([*arguments, "--dry-run"]) == 0, capsys.readouterr().out


FAILS = {
    "no file": (["data.train.0.path=data/nowhere"], "data/nowhere: no such file"),
    "no split": (['data.train.7.split="train"'], "has no split 'train'; splits: if_on_policy_70b"),
    "no option": (["data.train.0.colour=1"], "dataset 'rlaif-v' has no option 'colour'"),
    "no part": (
        ['train.freeze=["eyes"]'],
        "train.freeze: the model has no part 'eyes'; parts: vision, projector, language, head",
    ),
    "no model to start from": (["init=runs/nowhere"], "is no model directory: it has no reward_config.json"),
    "texts alone": (
        ['backbone={name="causal-lm", model="Qwen/Qwen3-8B"}', "train.freeze=[]"],
        "no row that was read can be used: the model reads texts alone, and all have images",
    ),
    "too long": (
        ["backbone.max_tokens=60"],
        "24 of 24 rows can't be used, the first: data/RLAIF-V-Dataset/RLAIF-V-Dataset_000.parquet:1: "
        "responses[0]: prompt and response are",
    ),
    "no layer of an adapter": (
        ['train.lora={targets=["nothing"]}', "train.freeze=[]"],
        "train.lora.targets: no linear layer of language is called 'nothing'; names: q_proj",
    ),
    "no layer of a head": (["head.layer=99"], "head.layer is 99; the backbone has layers 1 to 3"),
    "no text to write": (
        ['backbone={name="tiny"}', 'paradigm={name="critic", template="verdict"}', "train.freeze=[]"],
        "asks for a verdict",
    ),
    "no text to learn": (
        ['paradigm={name="generative", template="reasoned"}', "train.freeze=[]"],
        "24 of 24 rows can't be used",
    ),
    "no metric": (["train.best_by=acuracy"], "train.best_by: there is no metric 'acuracy'; did you mean"),
    "no curation of a stream": (
        ["data.streaming=true", 'data.curation=[{name="near-duplicates"}]'],
        "as streamed data can't",
    ),
    "nothing to train": (
        ["backbone.quantize=4bit", "backbone.model=tiny/wide"],
        "the weights of part 'language' are quantized and can't be trained",
    ),
    "no memory": (
        # Its files are not here, so that its published sizes count.
        ["backbone.model=Qwen/Qwen3-VL-32B-Instruct", "train.parallel=ddp"],
        "doesn't fit; see `basereward plan`",
    ),
}


@pytest.mark.parametrize("name", FAILS)
def test_what_would_fail_later_fails_at_once(
    name: str, cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, message = FAILS[name]
    overrides = [text for setting in settings for text in ("--set", setting)]
    arguments = ["--dry-run", "--overwrite", "--gpus", "64", "--gpu", "h100"]
    assert main(["train", "recipes/basereward-7b.toml", *arguments, *overrides]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert message in printed
    assert "problems" in printed


def test_images_that_are_not_there_are_found(
    cwd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("data/MMPR-v1.2", tmp_path / "MMPR-v1.2")
    shutil.rmtree(tmp_path / "MMPR-v1.2" / "images")
    setting = f"data.train.1.path={tmp_path / 'MMPR-v1.2'}"
    assert main(["train", "recipes/basereward-7b.toml", "--dry-run", "--overwrite", "--set", setting]) == 1
    # Two parts of three have images: 10 rows of each of the three files are looked at.
    assert "20 of 30 rows can't be used" in " ".join(capsys.readouterr().out.split())


def test_rows_whose_images_cannot_be_read_are_told_by_their_place(
    cwd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "MMPR-v1.2"
    shutil.copytree("data/MMPR-v1.2", path)
    (path / "images" / "ai2d_correctness_rules" / "1-0.png").write_bytes(b"no image")
    arguments = ["train", "recipes/basereward-7b.toml", "--dry-run", "--overwrite"]
    arguments += ["--set", f"data.train.1.path={path}"]
    assert main(arguments) == 0  # one row of thirty is below the share that may be lost
    assert "30 rows read, 1 bad, 29 of use" in " ".join(capsys.readouterr().out.split())
    assert main([*arguments, "--set", "data.train.1.max_bad_share=0.01"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    place = f"{path / 'annotations' / 'ai2d_correctness_rules.jsonl'}:2"
    assert f"1 of 30 rows can't be used, the first: {place}: " in printed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tokenizer.json", "can't load the tokenizer"),
        ("preprocessor_config.json", "can't load the image processor"),
        ("model.safetensors", "has no file model.safetensors, which holds weights of the model"),
    ],
)
def test_a_model_that_lacks_a_file_is_found(
    name: str, message: str, cwd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("tiny/qwen2_5_vl", tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    model = f"backbone.model={tmp_path / 'model'}"
    assert main(["train", "recipes/basereward-7b.toml", "--dry-run", "--overwrite", "--set", model]) == 1
    assert message in " ".join(capsys.readouterr().out.split())


def test_a_chat_template_without_a_place_for_images_is_found(
    cwd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("tiny/internvl-qwen2", tmp_path / "model")
    template = tmp_path / "model" / "chat_template.jinja"
    template.write_text(template.read_text().replace("<IMG_CONTEXT>\n", ""))
    backbone = f'backbone={{name="internvl", model="{tmp_path / "model"}"}}'
    arguments = ["train", "recipes/basereward-7b.toml", "--dry-run", "--overwrite"]
    assert main([*arguments, "--set", backbone, "--set", "train.freeze=[]"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "24 of 24 rows can't be used, the first: " in printed
    assert "the chat template leaves out or repeats a message" in printed


def test_a_library_that_is_not_installed_is_found(
    cwd: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    adapters = ["--set", "train.lora={rank=4}", "--set", "train.freeze=[]"]
    assert main(["train", "recipes/basereward-7b.toml", "--dry-run", "--overwrite", *adapters]) == 1
    assert install_command("train") in " ".join(capsys.readouterr().out.split())
