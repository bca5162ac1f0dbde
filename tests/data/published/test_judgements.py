"""LLaVA-Critic: question and responses are taken out of the judge's prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from published import read, turn


@pytest.mark.parametrize(
    ("given", "verdict", "expected"),
    [
        (
            "Question: [Which?]\nResponse 1: [a [1]]\nResponse 2: [b]\n",
            "So. The better response: [1]",
            ("Which?", ("a [1]", "b"), (0, 1), None),
        ),
        (
            "Question: [Which?]\nResponse A: [a]\nResponse B: [b]",
            "Thus both responses are equally good.",
            ("Which?", ("a", "b"), (0, 0), None),
        ),
        (
            "<|User Prompt|>\nWhich?\n\n<|The Start of Assistant A's Answer|>\na\n<|The End of Assistant A's "
            "Answer|>\n\n<|The Start of Assistant B's Answer|>\nb\n<|The End of Assistant B's Answer|>",
            "My final verdict is: [[B>>A]]",
            ("Which?", ("a", "b"), (1, 0), None),
        ),
        (
            "[Question]\nWhich?\n\n[Assistant 1]\na\n\n[End of Assistant 1]\n\n[Assistant 2]\nb\n\n"
            "[End of Assistant 2]\n\n[System] ...",
            "7 8.5\nThe second is better.",
            ("Which?", ("a", "b"), (1, 0), (7, 8.5)),
        ),
        (
            "Text Caption: a cat on a mat\nFrom 0 to 100, how well does it describe the image?",
            "Explanation: fine.\nFinal Score: 85",
            ("Describe this image in detail.", ("a cat on a mat",), (0,), (85,)),
        ),
    ],
)
def test_every_form_of_llava_critic_is_taken_apart(
    tmp_path: Path, given: str, verdict: str, expected: tuple[Any, ...]
) -> None:
    row = {"conversations": [turn("human", f"<image>\n{given}"), turn("gpt", verdict)], "image": "cat.png"}
    [comparison], _ = read(tmp_path, "llava-critic", row)
    assert (comparison.prompt[0].text, comparison.responses, comparison.ranks, comparison.ratings) == expected


def test_a_judgement_of_another_form_is_refused(tmp_path: Path) -> None:
    row = {"conversations": [turn("human", "Question: [q]\nResponse 1: [a]"), turn("gpt", "?")]}
    _, rejected = read(tmp_path, "llava-critic", row)
    assert rejected == ["1: conversations: question, responses or verdict are of no known form"]
