"""A benchmark of somebody else's: anything with `comparisons` and `report` will do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from basereward import Comparison
from basereward.evaluation import Score
from basereward.evaluation.benchmarks.report import save_run
from basereward.evaluation.benchmarks.run import run_benchmark
from basereward.protocols import adopt
from basereward.scoring.baselines import baseline_of


class Coins:
    """Two comparisons, of which the score counts the first responses with a reward above 0."""

    def comparisons(self) -> list[Comparison]:
        return [Comparison("p", ["aaa", "b"], ranks=[0, 1]), Comparison("q", ["a", "bb"], ranks=[0, 1])]

    def report(self, rewards: Sequence[Sequence[float] | None]) -> dict[str, Score]:
        value = sum(found is not None and found[0] > 0 for found in rewards) / len(rewards)
        return {"heads": Score("heads", value, 0.0, 1.0, len(rewards), "coins")}


def test_a_benchmark_that_is_no_subclass_of_ours_has_a_whole_report(tmp_path: Path) -> None:
    adopt("benchmark", Coins, "benchmark 'coins'")
    models = {"a/b": baseline_of("longest"), "a_b": baseline_of("shortest")}
    run = run_benchmark(Coins(), models, name="coins", data="none")
    assert [entry.scores["heads"].value for entry in run.entries] == [1, 0]
    assert run.notes == [
        "Ties: as the benchmark has it.",
        "a/b: 0 of 2 pairs have equal rewards.",
        "a_b: 0 of 2 pairs have equal rewards.",
    ]
    save_run(run, tmp_path)
    # The names of both models would make one directory.
    assert {path.parent.name for path in tmp_path.glob("*/rewards.jsonl")} == {"a_b", "a_b-2"}
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert "| heads | 100.00 (0.0 to 100.0) | 0.00 (0.0 to 100.0) |  |  | 2 coins | Wilson |" in lines
    assert "In print" not in (tmp_path / "report.html").read_text()
