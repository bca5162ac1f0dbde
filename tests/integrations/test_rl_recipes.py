"""The tasks, run files and tables of recipes/rl, and what docs/rl.md imports."""

from __future__ import annotations

import ast
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from basereward import Comparison
from basereward.config import load_run
from basereward.errors import ConfigError
from basereward.paradigms.judge_rationales import given_rationales

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes/rl"
TEXT = (ROOT / "docs/rl.md").read_text(encoding="utf-8")
TRUST = (ROOT / "docs/trust.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["reward", "reward_few", "judge", "judge_sft"])
def test_run_files_can_be_read(name: str) -> None:
    assert load_run(RECIPES / f"{name}.toml").data.train


@pytest.mark.parametrize(
    ("completion", "keeps"),
    [
        ("What a lovely window.", True),
        (" The Window is lovely! ", True),
        ("What a lovely window", False),  # has no end
        ("What a window. So lovely.", False),  # two sentences
        ("What a lovely view.", False),
        ("What lovely windows.", False),
        ("A window.", False),  # two words
        ("", False),
    ],
)
def test_the_rule_wants_one_whole_sentence_with_the_word(recipe: Any, completion: str, keeps: bool) -> None:
    assert recipe("policy_task").keeps_rule(completion, "window") is keeps


def test_no_word_or_subject_of_the_unseen_prompts_is_in_the_training(recipe: Any) -> None:
    task = recipe("policy_task")
    seen, unseen = task.tasks(500, 1), task.tasks(500, 2, are_unseen=True)
    assert {each.word for each in seen}.isdisjoint({each.word for each in unseen})
    subject = re.compile(r"about (.*) in one")
    subjects = [{subject.findall(each.prompt)[0] for each in tasks} for tasks in (seen, unseen)]
    assert subjects[0].isdisjoint(subjects[1])


def test_every_unseen_prompt_is_there_once(recipe: Any) -> None:
    task = recipe("policy_task")
    every = task.every_unseen()
    assert len(set(every)) == len(every) == task.NUM_UNSEEN_SUBJECTS * task.NUM_UNSEEN_WORDS
    assert set(task.tasks(500, 2, are_unseen=True)) == set(every)


def test_the_judges_better_answer_is_the_one_in_capital_letters(recipe: Any) -> None:
    for comparison in recipe("judge_task").comparisons(20, 0):
        [pair] = comparison.pairs()
        assert comparison.responses[pair.chosen].isupper()
        assert comparison.responses[pair.rejected].islower()
        # Reading them fails where a verdict is not what the ranks say.
        assert set(given_rationales(comparison, is_needed=True)) == {(0, 1), (1, 0)}


def test_the_table_gives_means_over_seeds_with_the_least_and_the_largest(recipe: Any) -> None:
    pytest.importorskip("basereward_mini")
    made = recipe("table")
    before = dict.fromkeys(made.COLUMNS, 0.25)
    results = [
        {"reward": reward, "before": before, "after": dict.fromkeys(made.COLUMNS, value)}
        for reward in ("rule", "model", "hybrid")
        for value in (0.5, 20.0)
    ]
    lines = made.table(results).splitlines()
    assert lines[2].startswith("| nothing | 0.25 |")
    # (0.5 + 20) / 2 = 10.25
    assert lines[3].startswith("| rule | 10.2 (0.50 to 20.0) |")


def test_the_docs_show_the_table_of_the_kept_results(recipe: Any) -> None:
    pytest.importorskip("basereward_mini")
    kept = json.loads((ROOT / "benchmarks/results/rl.json").read_text(encoding="utf-8"))
    assert recipe("table").table(kept["runs"]) in TEXT


def test_best_of_n_is_worth_what_the_gold_rewards_make_of_it(recipe: Any, tmp_path: Path) -> None:
    pytest.importorskip("basereward_mini")
    made = recipe("overoptimization")
    rows = [
        Comparison("a prompt", ["one", "two", "three", "four"], ratings=[0, 0, 1, 0], id=name)
        for name in "abcd"
    ]
    judge = {row.id: [1.0, 2.0, 4.0, 3.0] for row in rows}
    # One member chooses by the judge's reward, the other takes the last, which is the judge's second.
    members = {"same": judge, "last": {name: [1.0, 2.0, 3.0, 4.0] for name in judge}}
    found = made.measured(members, judge, rows, tmp_path)
    assert set(found) == {"judge", "rule"}
    gold = {name: curve["gold"][4]["value"] for name, curve in found["judge"]["curves"].items()}
    # The judge's rewards have the mean 2.5 and the variance 5/3 within a prompt: (4 - 2.5) / 1.29.
    assert gold["member same"] == pytest.approx(1.5 / (5 / 3) ** 0.5)
    assert gold["member last"] == pytest.approx(0.5 / (5 / 3) ** 0.5)
    lines = made.gain_table({"4 texts": json.loads(json.dumps(found))}).splitlines()
    assert lines[2].startswith("| 4 texts | judge | member same | ")
    assert lines[2].endswith("| 1.16 ± 0.00 |")


def test_the_docs_show_the_tables_of_the_kept_candidates_and_runs(recipe: Any) -> None:
    pytest.importorskip("basereward_mini")
    made = recipe("overoptimization")
    kept = {
        name: json.loads((ROOT / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))
        for name in ("overoptimization", "rl")
    }
    assert made.gain_table(kept["overoptimization"]["best_of_n"]) in TRUST
    assert made.course_table(kept["rl"]["runs"]) in TRUST


def test_what_the_docs_import_is_there() -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("basereward."):
                if node.module == "basereward.integrations.filtered_grpo":
                    pytest.importorskip("trl")
                module = import_module(node.module or "")
                for name in node.names:
                    assert hasattr(module, name.name) or import_module(f"{node.module}.{name.name}")


def test_the_policys_evaluation_names_tasks_of_the_installed_package() -> None:
    """Names, options and arguments of the model as `pip download lmms-eval --no-deps` has them."""
    known = json.loads((ROOT / "tests/integrations/lmms_eval.json").read_text(encoding="utf-8"))
    [block] = [text for text in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) if "lmms_eval" in text]
    assert f"{known['package']}=={known['version']}" in block
    [command] = re.findall(r"python -m lmms_eval (.*)", block.replace("\\\n", " "))
    options = dict(re.findall(r"(--\w+)(?: +([^-\s]\S*))?", command))
    assert set(options) <= set(known["options"])
    arguments = dict(part.split("=", 1) for part in options["--model_args"].split(","))
    assert set(arguments) <= set(known["models"][options["--model"]])
    tasks = options["--tasks"].split(",")
    assert set(tasks) <= {*known["tasks"], *known["groups"]}
    # Each column of table 11 is one of the tasks, and each task a column.
    columns = re.findall(r"^\| [^|]+ \| `(\w+)` \|", TEXT, re.MULTILINE)
    assert columns == tasks


def test_the_judges_unseen_comparisons_have_subjects_of_their_own(recipe: Any) -> None:
    task = recipe("judge_task")
    asked = [
        {str(each.prompt) for each in task.comparisons(200, 0, are_unseen=are_unseen)}
        for are_unseen in (False, True)
    ]
    assert asked[0].isdisjoint(asked[1])


def test_a_judges_measures_are_those_of_its_answers_in_both_orders(recipe: Any) -> None:
    # Right in both orders; always the first; always the second; no answer to one order.
    outcomes = [[1, 1], [1, 0], [0, 1], [None, 1]]
    assert recipe("judge_report").summary(outcomes) == {
        "right": 5 / 8,
        "both_right": 1 / 4,
        "first_preferred": 3 / 8,
        "position_consistency": 1 / 4,
        "parse_failures": 1 / 8,
    }


def test_answers_that_rose_and_fell_are_tested_by_the_binomial_of_a_coin(recipe: Any) -> None:
    report = recipe("judge_report")
    # 5 of 6 changes are for the better: 2 (1 + 6) / 64.
    assert report.sign_test([0] * 5 + [1, 1, 2], [1] * 5 + [0, 1, 2]) == {"rose": 5, "fell": 1, "p": 14 / 64}
    assert report.sign_test([1, 0], [1, 0]) == {"rose": 0, "fell": 0, "p": 1.0}
    before, after = [[0, 0]] * 8, [[1, 0]] * 8
    each, pooled = report.tests(before, [after])
    assert each == pooled == {"rose": 8, "fell": 0, "p": 2 / 256}


def test_watched_measures_compare_the_answers_to_both_orders_of_a_pair(recipe: Any) -> None:
    pytest.importorskip("basereward_mini")
    watch = {each.__name__: each for each in recipe("judge").watchers(2)}
    texts = [f"<think>-</think><answer>{verdict}</answer>" for verdict in (1, 2, 2, 2)]
    # The better response is first in the first question, second in the next, with two answers to each.
    found = {name: each([*texts[:3], "none"], verdict=[1, 1, 2, 2]) for name, each in watch.items()}
    assert found["position_consistency"] == [0.5, 0.0, 0.5, 0.0]
    assert found["first_preferred"] == [1.0, 0.0, 0.0, 0.0]
    assert found["format_reward"] == [1.0, 1.0, 1.0, 0.0]


def test_the_docs_show_the_judges_tables_of_the_kept_results(recipe: Any) -> None:
    report = recipe("judge_report")
    kept = json.loads((ROOT / "benchmarks/results/rl_judge.json").read_text(encoding="utf-8"))
    assert report.table(kept) in TEXT
    assert report.course_table(kept) in TEXT


def test_a_directory_of_other_settings_is_not_taken_for_one_of_these(recipe: Any, tmp_path: Path) -> None:
    pytest.importorskip("basereward_mini")
    judge = recipe("judge")
    settings = {"steps": 10, "lr": 5e-5}
    judge.claim(tmp_path / "new", settings)
    judge.claim(tmp_path / "new", settings)  # goes on
    with pytest.raises(ConfigError, match=r"was made with {'steps': 10}; give those, or another --output"):
        judge.claim(tmp_path / "new", {**settings, "steps": 20})
    (tmp_path / "old" / "sft").mkdir(parents=True)
    with pytest.raises(ConfigError, match="has files and no settings.json"):
        judge.claim(tmp_path / "old", settings)


@pytest.mark.parametrize(("num_steps", "heads"), [(2, ["1 to 1", "2 to 2"]), (10, ["1 to 2", "3 to 4"])])
def test_a_short_course_has_a_row_a_step(recipe: Any, num_steps: int, heads: list[str]) -> None:
    report = recipe("judge_report")
    course = [dict.fromkeys(report.CURVES, float(step)) for step in range(num_steps)]
    rows = report.course_table({"runs": [{"course": course}]}).splitlines()[2:]
    assert len(rows) == min(5, num_steps)
    assert [row.split(" | ")[0] for row in rows[:2]] == [f"| {head}" for head in heads]
    last = rows[-1].split(" | ")[1]  # the last step of two, or the last two of ten
    assert last == ("1.00" if num_steps == 2 else "8.50")
