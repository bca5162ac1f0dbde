"""MM-RLHF-RewardBench's own annotation file, which is not part of this repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from basereward import cli
from basereward.config import Component
from basereward.plugins import PluginManager

FILE = Path(__file__).parents[4] / "shared" / "data" / "mm_rlhf_rewardbench.jsonl"

pytestmark = pytest.mark.skipif(not FILE.is_file(), reason=f"the annotation file is not at {FILE}")


def test_the_longer_response_scores_what_was_counted_by_hand(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    arguments = ["evaluate", "longest", "--benchmark", "mm-rlhf-rewardbench", "--data", str(FILE)]
    assert cli.main([*arguments, "--json", str(out), "--quiet"]) == 0
    found = json.loads(out.read_text())["models"]["longest"]["scores"]
    assert list(found)[:2] == ["Acc", "Acc+"]
    assert round(100 * found["Acc"]["value"], 2) == 71.76  # 122 of 170
    assert round(100 * found["Acc+"]["value"], 2) == 47.83  # 22 of 46
    assert (found["Acc"]["num"], found["Acc+"]["num"]) == (170, 46)
    categories = ("mcq", "long", "short", "safety", "video")
    assert [found[f"Acc {name}"]["num"] for name in categories] == [42, 37, 34, 32, 25]
    assert [found[f"Acc+ {name}"]["num"] for name in categories] == [10, 10, 10, 6, 10]
    # 31 of 42, 30 of 37, 17 of 34, 21 of 32, 23 of 25
    expected = [73.81, 81.08, 50.00, 65.62, 92.00]
    assert [round(100 * found[f"Acc {name}"]["value"], 2) for name in categories] == expected


def test_random_rewards_order_a_whole_ranking_more_often_than_a_coin_for_each_pair() -> None:
    benchmark = PluginManager().build("benchmark", Component("mm-rlhf-rewardbench", {"path": str(FILE)}))
    scores = benchmark.report([item.lengths for item in benchmark.items])
    sizes = [
        list(item.group for item in benchmark.items).count(name)
        for name in {i.group for i in benchmark.items}
    ]
    coin = sum(0.5**size for size in sizes) / len(sizes)
    assert round(100 * coin, 2) == 11.24
    assert round(100 * scores["Acc+"].chance, 2) == 18.79
    assert scores["Acc"].chance == 0.5
