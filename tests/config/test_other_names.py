"""The names that other tools have for settings lead to ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from basereward.config import load_run
from basereward.config.other_names import OTHER_NAMES
from basereward.config.reference import TABLES, settings_of
from basereward.errors import ConfigError

RUN = 'output = "runs/a"\nbackbone = "tiny"\ndata.train = [{name = "basereward", path = "a.jsonl"}]\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train.learning_rate = 1e-5", "[train] has no key 'learning_rate'; write lr; keys: epochs, "),
        ("train.lora_r = 8", "[train] has no key 'lora_r'; write [train.lora] with rank; keys: "),
        ("train.lora.r = 8", "[train.lora] has no key 'r'; write rank; keys: rank, "),
        ("output_dir = 'x'", "the top level has no key 'output_dir'; write output; keys: "),
        ("train.epoch = 1", "[train] has no key 'epoch'; did you mean 'epochs'? keys: "),
    ],
)
def test_a_name_of_another_tool_is_answered_by_ours(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f"{line}\n{RUN}")
    with pytest.raises(ConfigError, match=re.escape(f"{path}: {message}")):
        load_run(path)


def test_every_answer_begins_with_a_setting_that_there_is() -> None:
    known = {setting.name for table in TABLES for setting in settings_of(table)}
    known |= {"backbone", "data", "train", "max_tokens", "zero_coefficient"}
    for name, answer in OTHER_NAMES.items():
        first = re.match(r"\[?(\w+)", answer)
        assert first is not None, name
        assert first[1] in known, name
        assert name not in known
