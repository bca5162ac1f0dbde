"""A run file in YAML is the run of its like in TOML, and has the same mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from basereward.config import load_run
from basereward.errors import ConfigError

TOML = """\
output = "runs/a"
backbone = { name = "tiny", dim = 8 }
head = "linear"

[[data.train]]
name = "basereward"
path = "a.jsonl"

[train]
lr = 1e-5
lr_parts = { head = 2.5e-4 }
freeze = ["vision"]
"""
YAML = """\
output: runs/a
backbone: {name: tiny, dim: 8}
head: linear
data:
  train:
    - {name: basereward, path: a.jsonl}
train:
  lr: 1e-5
  lr_parts: {head: 2.5e-4}
  freeze: [vision]
"""


@pytest.mark.parametrize("name", ["run.yaml", "run.yml"])
def test_both_forms_are_the_same_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "run.toml").write_text(TOML)
    (tmp_path / name).write_text(YAML)
    assert load_run(tmp_path / name) == load_run(tmp_path / "run.toml")
    changed = load_run(tmp_path / name, ["train.lr=1e-6"])
    assert changed.train.lr == 1e-6


def test_aliases_and_merged_tables_are_read(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    text = YAML.replace("data:\n", "data: &data\n  on_bad_row: fail\n")
    second = "{name: second, data: {<<: *data, streaming: true}}"
    path.write_text(f"{text}stages:\n  - {{name: first}}\n  - {second}\n")
    run = load_run(path)
    assert run.stages[1].data["on_bad_row"] == "fail"
    assert run.stages[1].data["streaming"] is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML: while parsing a flow"),
        ("- a", "is not YAML: it must be a table of settings, such as `output: runs/first`"),
        ("", "is not YAML: it must be a table of settings"),
        (YAML + "output: runs/b\n", "is not YAML: the key 'output' in"),
        (YAML + "1: x\n", "is not YAML: the key 1 in"),
        ("a: &a {b: *a}", "is not YAML: an alias stands within what it is an alias of"),
        ("a: &a [*a]", "is not YAML: an alias stands within what it is an alias of"),
        ("a: !!python/object/apply:os.system ['true']", "is not YAML: could not determine a constructor"),
        (YAML.replace("lr: ", "learning_rate: "), "[train] has no key 'learning_rate'; write lr;"),
        (YAML.replace("1e-5", "small"), "train.lr must be a number or \"none\", not the string 'small'"),
    ],
)
def test_a_mistake_is_named_by_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_run(path)
    assert str(caught.value).startswith(f"{path}: {message}")
