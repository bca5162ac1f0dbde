"""Files that commands wrote and read again: each that is damaged is an error of ours that names it."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from basereward import Comparison, ConfigError
from basereward.cli import main
from basereward.config.files import load_run
from basereward.errors import BaseRewardError
from basereward.evaluation.model_comparison import read_results
from basereward.evaluation.report import read_verdicts
from basereward.scoring.files import resume_point
from basereward.scoring.reward_table import read_facts as read_table_facts
from basereward.storage.reading import MAX_LINE_BYTES, read_lines
from basereward.study.results import Results
from basereward.study.spec import load_study
from basereward.study.worker import read_facts
from basereward.training.checkpoints import Checkpoints
from basereward.training.log_history import read_histories
from basereward.training.validation import Validator

Damage = Callable[[Path], object]

DAMAGES: dict[str, Damage] = {
    "a pipe": os.mkfifo,
    "a link without end": lambda path: path.symlink_to("/dev/zero"),
    "a directory": lambda path: path.mkdir(),
    "brackets": lambda path: path.write_bytes(b"[" * 100_000 + b"\n"),
    "brackets within": lambda path: path.write_bytes(b'{"a":' + b"[" * 100_000 + b"\n"),
    "not UTF-8": lambda path: path.write_bytes(b'{"a": "\xff\xfe"}\n'),
    "a list": lambda path: path.write_bytes(b"[]\n"),
    "a number": lambda path: path.write_bytes(b"1\n"),
    "a huge number": lambda path: path.write_bytes(b"[" + b"1" * 10_000 + b"]\n"),
    "NUL bytes": lambda path: path.write_bytes(b"\0" * 100 + b"\n"),
    "a key twice": lambda path: path.write_bytes(b'{"a": 1, "a": 2}\n'),
}
PACKED: dict[str, Damage] = {
    "brackets": lambda path: path.write_bytes(gzip.compress(b"[" * 100_000)),
    "a list": lambda path: path.write_bytes(gzip.compress(b"[]")),
    "cut short": lambda path: path.write_bytes(gzip.compress(b"{}" * 999)[:-9]),
    "altered": lambda path: path.write_bytes(gzip.compress(b"{}" * 999)[:-8] + b"\0" * 8),
    "a bomb": lambda path: path.write_bytes(gzip.compress(b" " * (2**20 + 1))),
}


@dataclass(frozen=True)
class Reader:
    """A file, and what reads it.

    Args:
        name: The file's path from the directory that is given to `read`.
        read: Reads it.
        make: Writes the files beside it.
    """

    name: str
    read: Callable[[Path], object]
    make: Callable[[Path], object] = lambda directory: None


class NoRows:
    """A reader of held-out data, of which there is one comparison."""

    def set_epoch(self, epoch: int) -> None:
        pass

    def read(self) -> list[list[Comparison]]:
        return [[Comparison("what?", ["yes", "no"], ranks=[0, 1])]]


def validator() -> Validator:
    reader: Any = NoRows()
    rejected: Any = None
    return Validator(reader, rejected, 8)


def save_checkpoint(directory: Path) -> None:
    Checkpoints(directory).save(1, {"model": {"weight": torch.zeros(2)}}, {})


def save_results(directory: Path) -> None:
    Results([], {}, {}, {}).save(directory)


READERS = {
    "checkpoint's state": Reader(
        "step-00000001/state.json", lambda directory: Checkpoints(directory).newest(), save_checkpoint
    ),
    "checkpoint's tensors": Reader(
        "step-00000001/model.safetensors", lambda directory: Checkpoints(directory).newest(), save_checkpoint
    ),
    "log": Reader("log.jsonl", lambda directory: read_histories([directory / "log.jsonl"])),
    "best rewards": Reader(
        "best.jsonl", lambda directory: validator().load_results(directory / "best.jsonl")
    ),
    "evaluation": Reader("rewards.jsonl", lambda directory: read_results(str(directory))),
    "verdicts": Reader("verdicts.jsonl", read_verdicts),
    "study's results": Reader("results.jsonl", Results.load, save_results),
    "study's unit scores": Reader("unit_scores.json.gz", Results.load, save_results),
    "study's facts": Reader("study.json", lambda directory: read_facts(directory / "study.json")),
    "table of rewards": Reader("a.parquet", lambda directory: read_table_facts(directory / "a.parquet")),
    "rewards to resume": Reader(
        "out.jsonl",
        lambda directory: resume_point(
            "-", directory / "out.jsonl", batch_size=1, resume=True, overwrite=False
        ),
    ),
    "run file": Reader("run.toml", lambda directory: load_run(directory / "run.toml")),
    "study file": Reader("study.toml", lambda directory: load_study(directory / "study.toml")),
}
"""Each reads what commands of ours have written, which somebody else may have written in their place."""


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", READERS)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, kind: str, damage: str) -> None:
    reader = READERS[kind]
    path = tmp_path / reader.name
    reader.make(tmp_path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    DAMAGES[damage](path)
    with pytest.raises(BaseRewardError, match=re.escape(str(path))):
        reader.read(tmp_path)


@pytest.mark.parametrize("damage", PACKED)
def test_unit_scores_that_are_damaged_within_are_an_error_that_names_them(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("basereward.study.results.MAX_UNIT_SCORES_BYTES", 2**20)
    save_results(tmp_path)
    path = tmp_path / "unit_scores.json.gz"
    PACKED[damage](path)
    with pytest.raises(ConfigError, match=f"^{path} (is damaged|can.t be read): "):
        Results.load(tmp_path)


@pytest.mark.parametrize("damage", ["a pipe", "a link without end", "a directory", "not UTF-8"])
def test_a_file_of_keys_is_looked_at_before_it_is_read(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.txt"
    DAMAGES[damage](path)
    assert main(["serve", "model", "--api-key-file", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


def test_lines_end_with_a_newline_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = ['{"id": "a\u2028b\x85c\x1cd"}\n', "2\n", "cut"]
    path.write_text("".join(lines), encoding="utf-8")
    assert list(read_lines(path)) == [(number, line.encode()) for number, line in enumerate(lines, 1)]


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rewards.jsonl"
    with path.open("wb") as file:
        file.write(b"{}\n")
        file.truncate(MAX_LINE_BYTES + 4)  # zeros that take no space
    with pytest.raises(
        ConfigError, match=rf"{path} can't be read: line 2 has more than the 67,108,864 bytes"
    ):
        read_results(str(tmp_path))
