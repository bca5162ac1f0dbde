"""A scale says where a rating stands in a text, and reads no other."""

from __future__ import annotations

from typing import Any

import pytest

from basereward.errors import ConfigError
from basereward.paradigms.rating_scale import RatingScale

FIVE = RatingScale.of({"levels": ["1", "2", "3", "4", "5"], "lead": "\nFinal Score: ", "explains": True})
WORDS = RatingScale.of(
    {"levels": ["bad", "good", "very good"], "values": [-1, 0, 2.5], "lead": "Rating: ", "explains": True}
)
AT_ONCE = RatingScale.of({"levels": ["No", "Yes"], "values": [0, 1]})
HUNDRED = RatingScale.of({"bounds": [0, 100], "lead": "Final Score:", "explains": True})


@pytest.mark.parametrize(
    ("scale", "text", "value"),
    [
        (FIVE, "Final Score: 4", 4),
        (FIVE, "Clear.\n\nFinal Score:\n **5**", 5),
        (FIVE, "Final Score: 2\nOn second thought, Final Score: 3.", 3),
        (FIVE, "Final Score: 7", None),
        (FIVE, "Final Score: 45", None),
        (FIVE, "Final Score: -4", None),
        (FIVE, "Final Score:", None),
        (FIVE, "4", None),
        (WORDS, "Rating: Very good", 2.5),
        (WORDS, "Rating: good.", 0),
        (WORDS, "Rating: goodish", None),
        (AT_ONCE, " **Yes**, it does.", 1),
        (AT_ONCE, "nothing", None),
        (AT_ONCE, "Is it? Yes", None),
        (HUNDRED, "Final Score: 87.5/100", 87.5),
        (HUNDRED, "Final Score: [0]", 0),
        (HUNDRED, "Final Score: 100.5", None),
        (HUNDRED, "Final Score: about 90", None),
    ],
)
def test_a_rating_is_read_behind_the_last_lead(scale: RatingScale, text: str, value: float | None) -> None:
    assert scale.rating_in(text) == value


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, 'a rating needs levels, such as ["bad", "fair", "good"], or bounds, such as [0, 100]'),
        ({"levels": ["one"]}, "levels are two names or more, the worst first, not ['one']"),
        ({"levels": ["a", "b"], "values": [2, 1]}, "values are 2 ascending numbers, not [2, 1]"),
        ({"bounds": [0, 100]}, "a number is read in what the judge writes, so bounds need explains = true"),
        (
            {"levels": ["a", "b"], "explains": True},
            'lead is the text before a rating, such as "Final Score: ", and explains is true or false; '
            "one that explains needs a lead; given are '' and True",
        ),
    ],
)
def test_a_wrong_scale_says_what_is_wrong(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        RatingScale.of(table)
    assert str(error.value) == message
