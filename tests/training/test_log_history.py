"""Logs as series: of runs that go on, of runs with other keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from basereward.errors import ConfigError
from basereward.training.log_history import RunHistory, check_metrics, read_histories, smoothed

RECORDS: list[dict[str, Any]] = [
    {
        "kind": "step",
        "step": 2,
        "loss": 0.7,
        "num_pairs": 8,
        "lr": {"language": 0.1, "head": 0.2},
        "seconds": 5.0,
    },
    {"kind": "evaluation", "step": 2, "accuracy": 0.5},
    {
        "kind": "step",
        "step": 4,
        "loss": None,
        "num_pairs": 6,
        "lr": {"language": 0.3, "head": 0.1},
        "seconds": 9.0,
    },
    {"kind": "checkpoint", "step": 4, "directory": "checkpoint/step-4"},
    {"kind": "step", "step": 6, "loss": 0.5, "num_pairs": 8, "seconds": 12.0},
    {"kind": "evaluation", "step": 7, "accuracy": 0.75},
]


def write(run_dir: Path, records: list[dict[str, Any]], rest: str = "") -> Path:
    run_dir.mkdir(parents=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (run_dir / "log.jsonl").write_text(lines + rest)
    return run_dir


def test_a_series_has_what_is_known_of_a_metric_where_it_belongs() -> None:
    history = RunHistory("run", RECORDS)
    assert history.series("loss") == ([2, 6], [0.7, 0.5])
    assert history.series("held-out.accuracy") == ([2, 7], [0.5, 0.75])
    assert history.series("lr.head") == ([2, 4], [0.2, 0.1])
    assert history.series("lr") == ([2, 4], [0.2, 0.3])  # the largest of the parts
    assert history.series("no such") == ([], [])
    assert history.series("loss", "pairs") == ([8, 22], [0.7, 0.5])
    assert history.series("loss", "seconds") == ([5.0, 12.0], [0.7, 0.5])
    # Evaluations don't say when: the record of a step before them does.
    assert history.series("held-out.accuracy", "pairs") == ([8, 22], [0.5, 0.75])
    assert history.metrics == [
        "loss",
        "num_pairs",
        "lr",
        "lr.language",
        "lr.head",
        "seconds",
        "held-out.accuracy",
    ]


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    run = write(tmp_path / "run", RECORDS[:2], '{"kind": "step", "step": 4, "lo')
    (history,) = read_histories([run])
    assert history.records == RECORDS[:2]
    write(tmp_path / "new", [], '{"kind"')
    assert read_histories([tmp_path / "new"])[0].records == []


@pytest.mark.parametrize("line", ["{", "[1]"])
def test_another_line_that_is_no_record_is_an_error_with_its_place(tmp_path: Path, line: str) -> None:
    run = write(tmp_path / "run", RECORDS[:1], f"{line}\n{json.dumps(RECORDS[1])}\n")
    with pytest.raises(ConfigError) as raised:
        read_histories([run])
    assert str(raised.value).startswith(f"{run}/log.jsonl:2: is no record of a training")


def test_runs_are_named_as_shortly_as_they_can_be(tmp_path: Path) -> None:
    runs = [write(tmp_path / name, RECORDS) for name in ("a/run", "b/run", "c")]
    assert [history.name for history in read_histories(runs)] == ["a/run", "b/run", f"{tmp_path.name}/c"]
    assert [history.name for history in read_histories(runs[1:])] == ["run", "c"]
    assert [history.name for history in read_histories([runs[0] / "log.jsonl"])] == ["run"]
    # A directory of runs, as a run with stages is.
    assert [history.name for history in read_histories([tmp_path / "a"])] == ["run"]


def test_a_run_without_a_log_is_an_error(tmp_path: Path) -> None:
    for path, what in ((tmp_path, "holds no log.jsonl"), (tmp_path / "x", "isn't there")):
        with pytest.raises(ConfigError) as raised:
            read_histories([path])
        assert str(raised.value) == f"{path} {what}; give the directory of a run, or its log.jsonl"


def test_a_metric_that_no_run_has_is_an_error(tmp_path: Path) -> None:
    histories = [RunHistory("a", RECORDS[:1]), RunHistory("b", RECORDS[1:2])]
    check_metrics(histories, ["loss", "held-out.accuracy"])
    with pytest.raises(ConfigError) as raised:
        check_metrics(histories, ["los"])
    assert str(raised.value) == (
        "metric los: no run has it; did you mean 'loss'? there are: loss, num_pairs, lr, lr.language, "
        "lr.head, seconds, held-out.accuracy"
    )


def test_smoothing_is_a_mean_of_the_values_so_far() -> None:
    assert smoothed([1.0, 2.0, 4.0], 0.0) == [1.0, 2.0, 4.0]
    # Weights 0.5 and 0.25 of 0.75, then 0.5, 0.25 and 0.125 of 0.875.
    assert smoothed([1.0, 4.0, 2.0], 0.5) == pytest.approx(
        [1.0, (4 * 0.5 + 0.25) / 0.75, (1 + 1 + 0.125) / 0.875]
    )
    assert smoothed([3.0] * 5, 0.9) == pytest.approx([3.0] * 5)


def test_a_log_is_a_data_frame_where_pandas_is_installed() -> None:
    pytest.importorskip("pandas")
    records = [{"kind": "step", "step": 1, "loss": 0.5, "lr": {"head": 0.1}}]
    frame = RunHistory("run", records).to_pandas()
    assert frame.to_dict("records") == [{"kind": "step", "step": 1, "loss": 0.5, "lr.head": 0.1}]
