"""ShareGPT and WildVision-Battle: conversations become pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hub_datasets
import published
import pytest
from published import ASKED, CHAT, opened, read, said, turn


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


@pytest.mark.parametrize("name", ["wildvision-battle", "swe-arena"])
def test_tied_battles_are_kept_or_dropped(tmp_path: Path, name: str) -> None:
    write = {"wildvision-battle": hub_datasets.wildvision_battle, "swe-arena": hub_datasets.swe_arena}[name]
    write(tmp_path)
    kept, dropped = (opened(name, tmp_path, ties=ties) for ties in ("keep", "drop"))
    # Of each four votes there are one for each model, a tie, and one against both.
    ranks = [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (0.0, 0.0)]
    assert [row.ranks for row in kept] == ranks * (hub_datasets.NUM_ROWS // 4)
    assert [row.ranks for row in dropped] == ranks[:2] * (hub_datasets.NUM_ROWS // 4)
    assert (kept.count(), dropped.count()) == (hub_datasets.NUM_ROWS, hub_datasets.NUM_ROWS // 2)


def test_votes_that_are_none_and_battles_that_part_early_are_refused(tmp_path: Path) -> None:
    [row] = published.SETS["swe-arena"].rows
    said = [["user", "q"], ["assistant", "x"], ["user", "q"], ["assistant", "a"]]
    other = [["user", "q"], ["assistant", "y"], ["user", "q"], ["assistant", "b"]]
    states = {"model_A": {"messages": said}, "model_B": {"messages": other}}
    texts = {"model_A": "a", "model_B": "b"}
    answers = {model: {"messages": [["assistant", text]]} for model, text in texts.items()}
    comparisons, errors = read(
        tmp_path,
        "swe-arena",
        {**row, "feedback": {"vote_type": "vote_up"}},
        {**row, "feedback": None},
        {**row, "states": states},
        {**row, "states": answers},
    )
    assert [item.prompt[0].text for item in comparisons] == [published.ASKED]
    assert errors[0].startswith(
        "1: feedback.vote_type: unknown vote 'vote_up'; votes: vote_left, vote_model_A"
    )
    assert errors[1] == "2: feedback: is missing"
    assert errors[2].startswith("3: ")


def test_of_mmif_the_dpo_files_alone_are_read(tmp_path: Path) -> None:
    hub_datasets.mmif(tmp_path)
    dataset = opened("mmif", tmp_path)
    assert [file.name for file in dataset.files] == ["mmif_23k_dpo.json"]
    assert len(list(dataset)) == hub_datasets.NUM_ROWS
    assert not dataset.rejected
