"""Judges without a model."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from basereward import Comparison, ConfigError
from basereward.scoring.baselines import baseline_of, is_baseline

if TYPE_CHECKING:
    from pathlib import Path


def rewards(name: str, *comparisons: Comparison) -> list[list[float]]:
    return [found for _, found in baseline_of(name).score_stream(comparisons)]


def test_longest_and_shortest_count_characters() -> None:
    comparison = Comparison("p", ["ab", "äöü", "x"])
    assert rewards("longest", comparison) == [[2, 3, 1]]
    assert rewards("shortest", comparison) == [[-2, -3, -1]]


def test_random_follows_from_seed_prompt_and_response_alone() -> None:
    one, other = Comparison("p", ["a", "b"]), Comparison("q", ["a", "b"])
    (first,), (again,) = rewards("random", one), rewards("random", Comparison("p", ["b", "a"]))
    assert first == again[::-1]
    assert rewards("random:0", one) == [first]
    assert rewards("random:7", one) != [first]
    assert rewards("random", one, other)[1] != first
    assert all(0 <= reward < 1 for reward in first)


def test_random_prefers_either_side_of_about_half_the_pairs() -> None:
    found = rewards("random", *(Comparison(f"p{number}", ["a", "b"]) for number in range(1000)))
    # 500 expected, with a deviation of 16.
    assert 440 < sum(first > second for first, second in found) < 560


def test_no_image_is_opened(tmp_path: Path) -> None:
    comparison = Comparison("p", ["ab", "c"], images=[tmp_path / "none.png"])
    assert rewards("longest", comparison) == [[2, 1]]


@pytest.mark.parametrize("name", ["longest:1", "random:", "random:x", "random:-1"])
def test_what_is_no_judge_is_refused(name: str) -> None:
    assert is_baseline(name)
    with pytest.raises(ConfigError) as error:
        baseline_of(name)
    names = "longest, shortest, first, random, and random:SEED"
    assert str(error.value) == f"no baseline {name!r}; baselines: {names}"


def test_a_directory_of_another_name_is_no_judge() -> None:
    assert not is_baseline("./longest")
    assert not is_baseline("runs/random")


def test_judges_do_not_import_torch() -> None:
    code = "import sys, basereward.scoring.baselines, basereward.evaluation; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
