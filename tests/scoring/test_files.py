"""Scoring files: every row answered, in order, and the same after an interruption."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from basereward import ConfigError, DataError
from basereward.data import TRLDataset
from basereward.data.formats import DetectedDataset, formats, unknown_format
from basereward.data.published.ratings import HelpSteer
from basereward.scoring import files
from basereward.scoring.files import InputRows, score_file

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 16
"""Rows that are written at once with a batch of one."""


ELSEWHERE = "; images that lie elsewhere: option media_dir"


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def rows(count: int) -> list[dict[str, object]]:
    return [
        {
            "id": f"r{number}",
            "prompt": "p" * (1 + number * 7 % 5),
            "responses": [f"a {number}", f"b {-number}"],
        }
        for number in range(count)
    ]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_row_has_its_answer_in_its_place(model: Any, tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.jsonl",
        {"id": "own", "prompt": "p", "responses": ["a 1", "b 2", "c 3"]},
        "broken\n",
        "\n",
        {"id": 7, "prompt": "p", "chosen": "a 5", "rejected": "b 4"},
        {"prompt": "p", "responses": ["only 1"]},
        {"id": "none", "prompt": "p", "images": ["none.png"], "responses": ["a 1"]},
        {"id": "loud", "prompt": "p", "responses": ["a!"]},
        {"id": "other", "question": "p"},
    )
    counts = score_file(model, source, tmp_path / "out.jsonl", progress=False)
    unknown = unknown_format({"id": "other", "question": "p"}, formats())
    assert read(tmp_path / "out.jsonl") == [
        {"line": 1, "id": "own", "rewards": [1, 2, 3]},
        {"line": 2, "error": "is not JSON: Expecting value at column 1"},
        {"line": 4, "id": 7, "rewards": [5, 4]},
        {"line": 5, "rewards": [1]},
        {"line": 6, "id": "none", "error": f"images[0]: there is no file {tmp_path}/none.png{ELSEWHERE}"},
        {"line": 7, "id": "loud", "error": "responses: is too loud"},
        {"line": 8, "id": "other", "error": unknown},
    ]
    assert (counts.num_scored, counts.num_errors, counts.num_skipped) == (3, 4, 0)


def test_a_named_dataset_reads_the_file(model: Any, tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.jsonl",
        {"id": 1, "prompt": "p", "chosen": "a 5", "rejected": "b 4"},
        {"id": 2, "prompt": "p", "rejected": "b 2"},
        {"id": 3, "prompt": "p", "responses": ["a 1", "b 2"]},
    )
    score_file(model, source, tmp_path / "out.jsonl", dataset=TRLDataset(source), progress=False)
    rows = read(tmp_path / "out.jsonl")
    assert rows[:2] == [
        {"line": 1, "id": 1, "rewards": [5, 4]},
        {"line": 2, "id": 2, "error": "chosen: is missing"},
    ]
    assert rows[2]["error"].startswith("responses: is a column that is neither read")


def test_rows_that_are_joined_have_the_line_of_the_first_and_are_resumed(model: Any, tmp_path: Path) -> None:
    rated = [
        {"prompt": f"p {number // 2}", "response": f"r {number}", "helpfulness": number % 5}
        | dict.fromkeys(("correctness", "coherence", "complexity", "verbosity"), 1)
        for number in range(80)
    ]
    source = write(tmp_path / "in.jsonl", *rated)
    whole, target = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    score_file(model, source, whole, dataset=HelpSteer(source), batch_size=1, progress=False)
    assert [row["line"] for row in read(whole)] == list(range(1, 80, 2))
    target.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:20]))
    counts = score_file(
        model, source, target, dataset=HelpSteer(source), batch_size=1, resume=True, progress=False
    )
    assert target.read_bytes() == whole.read_bytes()
    assert (counts.num_skipped, counts.num_scored) == (16, 24)


def test_images_lie_beside_the_file_or_in_directories_that_are_allowed(model: Any, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "rows").mkdir()
    (tmp_path / "images" / "cat.png").write_bytes(b"")
    row = {"prompt": "p", "responses": ["a 1"], "images": ["../images/cat.png"]}
    source, target = write(tmp_path / "rows" / "in.jsonl", row), tmp_path / "out.jsonl"
    score_file(model, source, target, progress=False)
    rows = tmp_path / "rows"
    outside = f"images[0]: {rows}/../images/cat.png is not in {rows}"
    assert read(target) == [{"line": 1, "error": f"{outside}; allow its directory by the option media_roots"}]
    allowed = DetectedDataset(source, media_roots=(str(tmp_path / "images"),))
    score_file(model, source, target, dataset=allowed, overwrite=True, progress=False)
    assert read(target) == [{"line": 1, "rewards": [1]}]


def test_rows_of_several_files_are_not_scored_to_one(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.jsonl", *rows(1))
    with pytest.raises(ConfigError) as error:
        InputRows(DetectedDataset(tmp_path))
    assert str(error.value) == f"{tmp_path} has several files (a.jsonl, b.jsonl); score one of them"


def test_a_bad_row_ends_the_scoring_if_it_shall(model: Any, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", *rows(3), {"prompt": "p", "responses": []}, *rows(3))
    dataset = DetectedDataset(source)
    dataset.on_bad_row = "fail"
    with pytest.raises(DataError) as error:
        score_file(model, source, tmp_path / "out.jsonl", dataset=dataset, progress=False)
    assert str(error.value) == f"{source}:4: responses: the list is empty; at least one response is needed"
    assert [row["line"] for row in read(tmp_path / "out.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize("cut", ["nothing", "line feed", "half a row", "a chunk", "all"])
def test_a_run_that_was_killed_and_resumed_leaves_the_same_file(model: Any, tmp_path: Path, cut: str) -> None:
    source = write(tmp_path / "in.jsonl", *rows(50))
    whole, target = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    score_file(model, source, whole, batch_size=1, progress=False)
    content = whole.read_bytes()
    ends = [at + 1 for at, byte in enumerate(content) if byte == ord("\n")]
    left, num_kept = {
        "nothing": (len(content), 48),
        "line feed": (ends[34] - 1, 32),
        "half a row": (ends[20] + 9, 16),
        "a chunk": (ends[CHUNK - 1], 16),
        "all": (12, 0),
    }[cut]
    target.write_bytes(content[:left])
    model.scored.clear()
    counts = score_file(model, source, target, batch_size=1, resume=True, progress=False)
    assert target.read_bytes() == content
    assert (counts.num_skipped, counts.num_scored) == (num_kept, 50 - num_kept)
    assert sorted(model.scored) == sorted(f"r{number}" for number in range(num_kept, 50))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}\n{"b": 2}',
        "mine",
        "mine\n",
        "[1]\n",
        "\n",
        '{"line": 1}\n',
        '{"line": "1", "rewards": [0.5]}\n',
        '{"line": 1, "rewards": [0.5]}\nmine\n',
        '{"line": 1, "rewards": [0.5]}\nmine',
    ],
)
def test_resuming_leaves_a_file_of_somebody_else_alone(model: Any, tmp_path: Path, text: str) -> None:
    source = write(tmp_path / "in.jsonl", *rows(3))
    target = tmp_path / "notes.txt"
    target.write_text(text)
    with pytest.raises(ConfigError) as error:
        score_file(model, source, target, resume=True, progress=False)
    assert str(error.value) == f"{target} holds a line that is no result of this command; it can't be resumed"
    assert target.read_text() == text


def test_resuming_what_never_began_begins(model: Any, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", *rows(3))
    score_file(model, source, tmp_path / "out.jsonl", resume=True, progress=False)
    assert [row["line"] for row in read(tmp_path / "out.jsonl")] == [1, 2, 3]


def test_an_output_of_another_input_is_not_gone_on_with(model: Any, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", *rows(20))
    target = tmp_path / "out.jsonl"
    score_file(model, source, target, batch_size=1, progress=False)
    other = write(tmp_path / "other.jsonl", *reversed(rows(20)))
    with pytest.raises(ConfigError) as error:
        score_file(model, other, target, batch_size=1, resume=True, progress=False)
    assert str(error.value) == (
        f"line 16 has the id 'r15' in the output, but 'r4' in {other}; it is not of this input"
    )
    with pytest.raises(ConfigError) as error:
        score_file(model, write(other, *rows(5)), target, batch_size=1, resume=True, progress=False)
    assert str(error.value) == (
        f"the output goes up to line 16, but {other} ends at line 5; it is not of this input"
    )
    with pytest.raises(ConfigError) as error:
        score_file(model, source, write(target, *["text\n"] * 16), batch_size=1, resume=True, progress=False)
    assert str(error.value) == f"{target} holds a line that is no result of this command; it can't be resumed"


def test_an_output_is_replaced_only_on_request(model: Any, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", *rows(2))
    target = write(tmp_path / "out.jsonl", "precious\n")
    with pytest.raises(ConfigError) as error:
        score_file(model, source, target, progress=False)
    assert str(error.value) == f"{target} exists; --resume continues it, --overwrite replaces it"
    assert target.read_text() == "precious\n"
    score_file(model, source, target, overwrite=True, progress=False)
    assert len(read(target)) == 2


def test_the_input_is_never_written_over(model: Any, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", *rows(2))
    (tmp_path / "link.jsonl").symlink_to(source)
    with pytest.raises(ConfigError) as error:
        score_file(model, source, tmp_path / "link.jsonl", overwrite=True, progress=False)
    assert str(error.value) == f"{tmp_path}/link.jsonl is the input; give --output another file"


def test_an_output_that_cannot_be_written_is_named(model: Any, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", *rows(2))
    with pytest.raises(ConfigError) as error:
        score_file(model, source, tmp_path / "none" / "out.jsonl", progress=False)
    assert str(error.value) == f"{tmp_path}/none/out.jsonl can't be written: No such file or directory"


def test_rows_before_the_place_where_a_file_is_cut_short_are_scored(model: Any, tmp_path: Path) -> None:
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows(3000)).encode())
    (tmp_path / "in.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match="the gzip file is cut short or damaged after row"):
        score_file(model, tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl", progress=False)
    lines = [row["line"] for row in read(tmp_path / "out.jsonl")]
    assert lines == list(range(1, len(lines) + 1))
    assert len(lines) > 100


def test_standard_input_and_output(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "".join(json.dumps(row) + "\n" for row in rows(3))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode() + b"broken\n")))
    score_file(model, "-", "-", progress=True)
    shown = capsysbinary.readouterr()
    assert [json.loads(line)["line"] for line in shown.out.splitlines()] == [1, 2, 3, 4]
    assert b"scoring" in shown.err
    with pytest.raises(ConfigError) as error:
        score_file(model, "-", "-", resume=True)
    assert str(error.value) == "standard output can't be resumed; give --output a file"


def test_memory_does_not_grow_with_the_file(model: Any, tmp_path: Path) -> None:
    peaks = []
    for count in (1_000, 3_000):
        source = write(tmp_path / f"{count}.jsonl", *rows(count))
        tracemalloc.start()
        score_file(model, source, tmp_path / f"{count}.out", progress=False)
        model.scored.clear()
        model.batch_sizes.clear()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The stand-in for the model remembers each id, some tens of bytes a row; the rows are not kept.
    assert peaks[1] - peaks[0] < 2_000 * 250


def test_a_file_that_another_process_writes_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    target = tmp_path / "rewards.jsonl"
    with files._opened(target, None) as file:
        file.write(b"first\n")
        file.flush()
        with pytest.raises(ConfigError, match=f"^{target} is being written by another process"):
            files._opened(target, None).__enter__()
    assert target.read_bytes() == b"first\n"
    with files._opened(target, None):
        pass
    assert target.read_bytes() == b""
