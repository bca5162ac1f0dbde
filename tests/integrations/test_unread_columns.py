"""A column that is a part of the question is read or refused by name; others are named once."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from typing import Any

import pytest

from basereward import Comparison
from basereward.data.columns import ANSWERED_COLUMNS, is_part_of_question
from basereward.errors import ColumnWarning, DataError
from basereward.integrations import ms_swift, verl
from basereward.integrations.rules import exact_match
from basereward.integrations.shaping import hybrid
from basereward.integrations.trl import reward_func

PARTS = [
    *("system", "system_prompt", "systemPrompt", "picture", "image_urls", "pics", "photos"),
    *("frames", "context", "history", "documents", "audio_path", "image_file", "media"),
    *("files", "multi_modal_data", "multi_modal_inputs", "mm_data", "video_path", "instruction", "query"),
    *("queries", "pixel_value", "pixel_values", "image_bytes", "tool", "functions", "imageUrl"),
    *("image_2", "attachments"),
]


def lengths(comparisons: Sequence[Comparison]) -> list[list[float] | DataError]:
    return [[float(len(text)) for text in each.responses] for each in comparisons]


def given(**more: Any) -> dict[str, Any]:
    return {"prompts": ["q", "q"], "completions": ["a", "a"], "completion_ids": [[0], [0]], **more}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_the_question_that_is_not_read_is_refused_by_its_name(name: str) -> None:
    assert reward_func(lengths)(**given(**{name: ["a cat", None]})) == [None, 1.0]
    assert reward_func(lengths)(**given(**{name: [None, ""]})) == [1.0, 1.0]
    with pytest.raises(DataError, match=rf"^{name}: is a column of the question that isn't read"):
        reward_func(lengths)(**given(**{name: ["a cat", "red dog"]}))
    with pytest.raises(DataError, match=f"^{name}: "):
        asyncio.run(verl.compute_score(lengths)("d", "a", "x", {"question": "q", name: "a cat"}))
    # It is read where it is the reward model's prompt.
    assert reward_func(lengths, prompt_column=name)(**given(**{name: ["a cat", "red dog"]})) == [1.0, 1.0]
    asyncio.run(verl.compute_score(lengths, prompt_key=name)("d", "a", "x", {name: "a cat"}))


def test_columns_that_formats_read_are_parts_or_restate_text_and_answers() -> None:
    restated = {"prompt", "question", "input", "messages", "conversations", "margin", "weight"}
    restated |= {"chosen", "rejected", "response", "rejected_response"}
    assert {name for name in ANSWERED_COLUMNS if not is_part_of_question(name)} == restated


def test_columns_of_verifiable_data_and_what_shapes_read_are_taken_in_silence() -> None:
    names = [
        "solution",
        "answer",
        "id",
        "task",
        "question",
        "image_id",
        "num_images",
        "tools_kwargs",
        "split",
    ]
    more = {name: ["x", "x"] for name in names} | {"kind": [1, 2]}
    assert reward_func(lengths)(**given(**more)) == [1.0, 1.0]
    shaped = reward_func(lengths, shapes=[hybrid(exact_match, column="target")])
    assert shaped(**given(target=["a", "a"])) == [1.0, 1.0]


def test_any_other_column_is_named_once() -> None:
    message = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    scored = reward_func(lengths)
    with pytest.warns(ColumnWarning, match="^the column 'scene' is not read$"):
        assert scored(**given(scene=["a cat", None])) == [1.0, 1.0]
    with pytest.warns(ColumnWarning, match="'scene'"):
        assert ms_swift.orm(lengths)()(["a"], messages=[message], scene=["a cat"]) == [1.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scored(**given(scene=["a cat", None], other=[1, 2.5], empty=[None, ""])) == [1.0, 1.0]
