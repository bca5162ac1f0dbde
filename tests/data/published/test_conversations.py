"""ShareGPT and WildVision-Battle: conversations become pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from published import ASKED, CHAT, read, said, turn


@pytest.mark.parametrize(
    ("winner", "ranks"),
    [("model_a", (0, 1)), ("model_b", (1, 0)), ("tie", (0, 0)), ("tie (bothbad)", (0, 0))],
)
def test_votes_of_battles(tmp_path: Path, winner: str, ranks: tuple[int, int]) -> None:
    row = {"conversation_a": [*CHAT, said("a")], "conversation_b": [*CHAT, said("b")], "winner": winner}
    [comparison], _ = read(tmp_path, "wildvision-battle", row)
    assert comparison.ranks == ranks


def test_a_battle_that_parts_before_the_last_answer_is_refused(tmp_path: Path) -> None:
    more = said("And now?", "user")
    row = {
        "conversation_a": [*CHAT, said("a"), more, said("c")],
        "conversation_b": [*CHAT, said("b"), more, said("d")],
        "winner": "model_a",
    }
    _, rejected = read(tmp_path, "wildvision-battle", row, {**row, "winner": "nobody"})
    assert rejected == [
        "1: chosen: the response must be one assistant message, not assistant, user, assistant",
        "2: winner: unknown winner 'nobody'; winners: model_a, model_b, tie, tie (bothbad), bothbad",
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [*CHAT, said("a")], "rejected_response": "b"},
        {"messages": [*CHAT, said("a")], "rejected_messages": [*CHAT, said("b")]},
        {"conversations": [turn("human", ASKED)], "chosen": "a", "rejected": turn("gpt", "b")},
        {"messages": [*CHAT, said("a")], "rejected_response": "b", "images": [], "rejected_images": []},
    ],
)
def test_the_dialects_of_sharegpt_mean_the_same(tmp_path: Path, row: dict[str, Any]) -> None:
    [comparison], _ = read(tmp_path, "sharegpt", row)
    assert (comparison.prompt[0].text, comparison.responses, comparison.ranks) == (ASKED, ("a", "b"), (0, 1))


def test_a_response_has_no_images_of_its_own(tmp_path: Path) -> None:
    row = {"messages": [*CHAT, said("a")], "rejected_response": "b", "images": ["cat.png"]}
    comparisons, rejected = read(
        tmp_path,
        "sharegpt",
        {**row, "rejected_images": ["cat.png"]},
        {**row, "rejected_images": ["dog.png"]},
        {**row, "system": "Be brief."},
    )
    assert [message.role for message in comparisons[1].prompt] == ["system", "user"]
    assert rejected == ["2: rejected_images: differ from images, but a response has no images of its own"]
