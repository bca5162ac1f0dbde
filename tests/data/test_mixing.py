"""The mixture of a run and its held-out rows: counts, shares, and no prompt in both."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import hub_datasets
import pytest
from layouts import write_lines

from basereward.cli import main
from basereward.comparison import Comparison
from basereward.config.conversion import Component
from basereward.data.mixing import Prompts
from basereward.plugins import PluginManager

RUN = """
output = "runs/x"
backbone = "tiny"
[[data.train]]
name = "basereward"
path = "images.jsonl"
[[data.train]]
name = "trl"
path = "texts.jsonl"
max_rows = 40
[[data.train]]
name = "vlfeedback"
path = "VLFeedback"
pairs = "each"
weight = 0.5
[[data.eval]]
name = "basereward"
path = "held/eval.jsonl"
[train]
batch_size = 8
max_steps = 2
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work where a run file and its data are; two rows in a row have one prompt, image included."""
    rows = []
    for number in range(60):
        hub_datasets.write_image(tmp_path / "images" / f"{number}.png", number)
        # The same question of all, so that the image alone tells prompts apart, of four images.
        responses = [f"good {number}", f"bad {number}"]
        rows.append({"prompt": "What?", "images": [f"images/{number}.png"], "responses": responses})
    write_lines(tmp_path / "images.jsonl", [{**row, "ranks": [0, 1]} for row in rows])
    texts = [{"prompt": f"q{number // 2}", "chosen": f"a{number}", "rejected": "b"} for number in range(80)]
    write_lines(tmp_path / "texts.jsonl", texts)
    hub_datasets.vlfeedback(tmp_path / "VLFeedback")
    (tmp_path / "run.toml").write_text(RUN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: str) -> list[Comparison]:
    """Return the rows of a file that was written."""
    dataset = PluginManager().build("dataset", Component("basereward", {"path": path}))
    rows = list(dataset)
    assert not dataset.rejected
    return rows


def mixed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Run the command, and return its report."""
    assert main(["data", "mix", "run.toml", "--json", *arguments]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def prompt_of(row: Comparison) -> tuple[object, ...]:
    """Return texts and images."""
    return (*(message.text for message in row.prompt), *(image.digest for image in row.images))


def test_counts_add_up_and_no_prompt_is_in_both(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = mixed(capsys, "--num-held-out", "14", "--output", "mixture.jsonl")
    held_out, mixture = read("held/eval.jsonl"), read("mixture.jsonl")
    assert {prompt_of(row) for row in held_out}.isdisjoint(map(prompt_of, mixture))
    assert len(set(map(prompt_of, held_out))) == len(held_out)
    images, texts, votes = report["sources"]
    assert (images["size"], texts["size"]) == (60, 80)
    assert (images["asked"], texts["asked"], votes["asked"]) == (60, 40, round(0.5 * votes["size"]))
    for source in report["sources"]:
        assert source["written"] + source["excluded"] + source["left_out"] == source["asked"]
    assert sum(source["held_out_asked"] for source in report["sources"]) == 14
    # The images are four, so no more prompts than that can be held out; the others have all that were asked.
    assert images["held_out"] == 4 < images["held_out_asked"]
    assert (texts["held_out"], votes["held_out"]) == (texts["held_out_asked"], votes["held_out_asked"])
    assert images["excluded"] == 60
    for file, rows in zip(report["files"], (held_out, mixture), strict=True):
        path = Path(file["path"])
        assert file["rows"] == len(rows)
        assert file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert json.loads((path.parent / f"{path.name}-files" / "report.json").read_text()) == report


def read_votes(place: Path) -> list[Comparison]:
    """Return the pairs of VLFeedback."""
    from basereward.config.run import Source
    from basereward.data.ranking_pairs import open_source

    source = Source("vlfeedback", {"path": str(place / "VLFeedback")}, pairs="each")
    return list(open_source(source, PluginManager()))


def test_it_is_the_same_each_time_and_is_not_overwritten(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = mixed(capsys, "--num-held-out", "6", "--output", "mixture.jsonl")
    assert main(["data", "mix", "run.toml", "--num-held-out", "6"]) == 2
    assert (
        "held/eval.jsonl exists; name another file, or replace it with --overwrite" in capsys.readouterr().err
    )
    again = mixed(capsys, "--num-held-out", "6", "--output", "mixture.jsonl", "--overwrite")
    assert again == first
    other = mixed(capsys, "--num-held-out", "6", "--output", "m2.jsonl", "--overwrite", "--set", "seed=1")
    assert other["files"][0]["sha256"] == first["files"][0]["sha256"]
    assert other["files"][1]["sha256"] != first["files"][1]["sha256"]  # another order


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-held-out", "1000"], "1,000 rows to hold out of "),
        (["--num-held-out", "0"], "--num-held-out is 0; allowed: 1 or more"),
        (["--output", "held/eval.jsonl"], "--output and the held-out rows are one file, held/eval.jsonl"),
        (["--set", "data.eval=[]"], "the run names no held-out file of our own format; give --held-out FILE"),
        (["--stage", "x"], "--stage is 'x'; stages: (none)"),
        (["--held-out", "x.txt"], "x.txt: the name must end in .jsonl or .parquet"),
    ],
)
def test_what_cant_be_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["data", "mix", "run.toml", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (place / "held" / "eval.jsonl").exists()


def test_training_leaves_out_what_is_held_out(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mixed(capsys, "--num-held-out", "6")["files"][0]["rows"] > 0
    held_out = set(map(prompt_of, read("held/eval.jsonl")))
    assert main(["train", "run.toml", "--quiet", "--set", "data.exclude_eval=true"]) == 0
    rejected = [json.loads(line) for line in Path("runs/x/rejected.jsonl").read_text().splitlines()]
    found = [row for row in rejected if row["reason"] == "its prompt is held out"]
    rows = [*read("images.jsonl"), *read_votes(place)]
    num_texts = sum(1 for number in range(80) if (f"q{number // 2}",) in held_out)
    assert len(found) == sum(prompt_of(row) in held_out for row in rows) + num_texts


def test_convert_writes_what_an_epoch_draws(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "convert", "--run", "run.toml", "--output", "rows.jsonl", "--quiet"]) == 0
    rows = read("rows.jsonl")
    by_source = {name: sum(row.source == name for row in rows) for name in {row.source for row in rows}}
    pairs = len(read_votes(place))
    assert by_source == {"images": 60, "texts": 40, "vlfeedback": round(0.5 * pairs)}


def test_a_prompt_is_its_texts_and_its_images() -> None:
    prompts = Prompts()
    png = hub_datasets.png
    prompts.add(Comparison("What?", ["a", "b"], images=[png(0)]))
    assert Comparison("What? ", ["c"], images=[png(0)]) in prompts
    assert Comparison("What?", ["a", "b"], images=[png(1)]) not in prompts
    assert Comparison("What?", ["a", "b"]) not in prompts
    assert Comparison("Which?", ["a", "b"], images=[png(0)]) not in prompts
    turns = [{"role": "system", "content": "What?"}, {"role": "user", "content": "What?"}]
    assert Comparison(turns, ["a", "b"], images=[png(0)]) not in prompts
