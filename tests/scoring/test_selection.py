"""The best of N, ranks and filters follow from rewards; nothing is left out without its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from basereward.cli import main
from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.scoring.selection import agreed, best_of, ranked

ROW = Comparison("p", ["a", "b", "c", "d"], ranks=[0, 1, 1, 2], id="x", weight=2.0, meta={"k": 1})


def test_the_best_come_first_and_the_earlier_of_equals() -> None:
    found = best_of(3)(ROW, [0.5, 2.0, -1.0, 2.0])
    assert found.responses == ("b", "d", "a")
    assert found.ranks is None
    assert found.meta == {"k": 1, "rewards": [2.0, 2.0, 0.5], "given_ranks": [1, 2, 0]}
    assert (found.id, found.weight) == ("x", 2.0)


def test_ranks_follow_rewards_and_equal_rewards_tie() -> None:
    found = ranked(ROW, [0.5, 2.0, -1.0, 2.0])
    assert found.responses == ("b", "d", "a", "c")
    assert found.ranks == (0, 0, 2, 3)


@pytest.mark.parametrize(
    ("rewards", "limits", "reason"),
    [
        # Pairs a > b, a > c, a > d, b > d, c > d; the smallest difference is that of a and b.
        ([3.0, 2.5, 1.0, 0.0], {}, None),
        ([3.0, 2.5, 1.0, 0.0], {"min_margin": 0.5}, "its margin is +0.5000, not above 0.5"),
        ([3.0, 2.5, 1.0, 0.0], {"max_margin": 0.4}, "its margin is +0.5000, above 0.4"),
        ([3.0, 2.5, 1.0, 0.0], {"max_margin": 0.5}, None),
        ([3.0, 2.5, 1.0, 2.0], {}, "its margin is -1.0000, not above 0"),
        ([3.0, 2.5, 1.0, 2.0], {"min_margin": None}, None),
        ([3.0, 2.5, 1.0, 0.0], {"min_reward": 3.5}, "its best response has the reward +3.0000, below 3.5"),
    ],
)
def test_a_filter_keeps_what_the_model_agrees_with(
    rewards: list[float], limits: dict[str, Any], reason: str | None
) -> None:
    if reason is None:
        assert agreed(**limits)(ROW, rewards).meta["rewards"] == rewards
        return
    with pytest.raises(DataError) as error:
        agreed(**limits)(ROW, rewards)
    assert str(error.value) == reason


def test_ties_alone_have_no_margin() -> None:
    with pytest.raises(DataError) as error:
        agreed()(Comparison("p", ["a", "b"], ranks=[0, 0]), [1.0, 2.0])
    assert str(error.value) == "ranks: no response is ranked above another"


def rows(directory: Path) -> Path:
    path = directory / "rows.jsonl"
    lines: list[dict[str, Any]] = [
        {"id": "one", "prompt": "q", "responses": ["yes", "yes, since"], "ranks": [1, 0]},
        {"id": "two", "prompt": "q", "responses": ["no, since", "no"], "ranks": [1, 0]},
        {"id": "bad", "prompt": "q", "responses": []},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("command", "written", "num_left_out"),
    [
        ("best-of-n", [["yes, since"], ["no, since"]], 1),
        ("rank", [["yes, since", "yes"], ["no, since", "no"]], 1),
        ("filter", [["yes", "yes, since"]], 2),
    ],
)
def test_the_commands_write_rows_and_list_what_they_leave_out(
    command: str,
    written: list[list[str]],
    num_left_out: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out.jsonl"
    # The judge `longest` prefers the longer response.
    assert main([command, "longest", str(rows(tmp_path)), "--output", str(output)]) == 0
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["responses"] for row in found] == written
    listed = (tmp_path / "out.jsonl-files" / "rejected.jsonl").read_text().splitlines()
    assert len(listed) == num_left_out
    said = f"{len(written)} of 3 rows: {output}; {num_left_out} left out, the first: "
    assert said in capsys.readouterr().err


def test_a_number_of_responses_that_cant_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "best-of-n",
        "longest",
        str(rows(tmp_path)),
        "--num",
        "0",
        "--output",
        str(tmp_path / "o.jsonl"),
    ]
    assert main(arguments) == 2
    assert capsys.readouterr().err == "basereward: error: --num is a number of responses >= 1, not 0\n"


@pytest.mark.parametrize("command", ["best-of-n", "rank", "filter"])
def test_the_input_is_not_replaced(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = rows(tmp_path)
    link = tmp_path / "link.jsonl"
    link.symlink_to(source)
    before = source.read_bytes()
    for given, output in [(source, source), (source, link), (link, source), (tmp_path, source)]:
        if given == tmp_path:
            link.unlink()
        assert main([command, "longest", str(given), "--output", str(output), "--overwrite"]) == 2
        assert capsys.readouterr().err == (
            f"basereward: error: {output} is the input; give --output another place\n"
        )
        assert source.read_bytes() == before
