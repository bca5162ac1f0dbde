"""Data sets of a judge's verdicts, whose question and responses stand in the judge's prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from basereward.data.dataset import FileDataset
from basereward.data.fields import as_list, name_of, parsed_json, plain, text_of, turns_of
from basereward.data.reading.row import Row
from basereward.errors import DataError

BRACKETS: Final = re.compile(
    r"Question: \[(?P<question>.*?)\]\s*"
    r"(?:Response 1|Response A|The first response): \[(?P<first>.*?)\]\s*"
    r"(?:Response 2|Response B|The second response): \[(?P<second>.*)\]",
    re.DOTALL,
)
ARENA: Final = re.compile(
    r"<\|User Prompt\|>\s*(?P<question>.*?)\s*"
    r"<\|The Start of Assistant A's Answer\|>\s*(?P<first>.*?)\s*<\|The End of Assistant A's Answer\|>\s*"
    r"<\|The Start of Assistant B's Answer\|>\s*(?P<second>.*?)\s*<\|The End of Assistant B's Answer\|>",
    re.DOTALL,
)
LLAVA_BENCH: Final = re.compile(
    r"\[Question\]\s*(?P<question>.*?)\s*\[Assistant 1\]\s*(?P<first>.*?)\s*\[End of Assistant 1\]\s*"
    r"\[Assistant 2\]\s*(?P<second>.*?)\s*\[End of Assistant 2\]",
    re.DOTALL,
)
CAPTION: Final = re.compile(r"Text Caption:\s*(?P<caption>.*?)\s*\nFrom 0 to 100,", re.DOTALL)

BETTER: Final = re.compile(r"The better response: \[(first|second|1|2|A|B)\]", re.IGNORECASE)
VERDICT: Final = re.compile(r"\[\[(A>>B|A>B|A=B|B>A|B>>A)\]\]")
TWO_SCORES: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)\s*(?:\n|$)")
FINAL_SCORE: Final = re.compile(r"Final Score:\s*(\d+(?:\.\d+)?)")
CAPTION_QUESTION: Final = "Describe this image in detail."

MAX_CHARACTERS = 200_000
"""Characters of a judge's prompt that are searched; a search of longer texts could take minutes."""


class LLaVACritic(FileDataset):
    """LLaVA-Critic-113k (arXiv 2410.02712): verdicts of GPT-4o; `config` is `pairwise` or `pointwise`.

    The first turn of `conversations` holds question and responses, in one of four forms; the second the
    verdict. Of two responses the better one is ranked first, two equally good ones are tied, and two scores
    become ratings. A scored caption becomes one response with its rating. Other forms are refused.
    """

    name = "llava-critic"
    columns: Mapping[str, str] = {
        "conversations": "the judge's prompt and its verdict",
        "image": "the image",
        "id": "names the row",
    }

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        turns = turns_of(row.get("conversations"), "conversations")
        if len(turns) != 2 or not all(isinstance(turn["content"], str) for turn in turns):
            raise DataError(
                "the judge's prompt and its verdict are needed, as two texts", field="conversations"
            )
        judge_prompt, verdict = (turn["content"][:MAX_CHARACTERS] for turn in turns)
        return {
            "id": name_of(row, "id"),
            "images": as_list(row.get("image")),
            **judged(judge_prompt.replace("<image>", "").strip(), verdict),
            "meta": plain(row, "source"),
        }


def judged(judge_prompt: str, verdict: str) -> Row:
    """Return question, responses and ranks or ratings of a judge's prompt and its verdict.

    Raises:
        DataError: When the form of either is unknown.
    """
    if match := BRACKETS.search(judge_prompt):
        if better := BETTER.search(verdict):
            is_first = better.group(1).lower() in ("first", "1", "a")
            return _pair(match, ranks=[0, 1] if is_first else [1, 0])
        if "equally good" in verdict[-300:]:
            return _pair(match, ranks=[0, 0])
    elif match := ARENA.search(judge_prompt):
        if verdicts := VERDICT.findall(verdict):
            last = verdicts[-1]
            return _pair(match, ranks=[0, 0] if "=" in last else [0, 1] if last[0] == "A" else [1, 0])
    elif match := LLAVA_BENCH.search(judge_prompt):
        if scores := TWO_SCORES.match(verdict):
            return _pair(match, ratings=[float(score) for score in scores.groups()])
    elif (match := CAPTION.search(judge_prompt)) and (caption_scores := FINAL_SCORE.findall(verdict)):
        return {
            "prompt": CAPTION_QUESTION,
            "responses": [match["caption"]],
            "ratings": [float(caption_scores[-1])],
        }
    raise DataError("question, responses or verdict are of no known form", field="conversations")


def _pair(match: re.Match[str], **order: Any) -> Row:
    return {
        "prompt": match["question"].strip(),
        "responses": [match["first"].strip(), match["second"].strip()],
        **order,
    }


RESPONSES: Final = re.compile(
    r"#+ \[Response 1\]:\s*(?P<first>.*?)\s*#+ \[Response 2\]:\s*(?P<second>.*?)\s*"
    r"(?:#+ \*\*Output Format|$)",
    re.DOTALL,
)
ANSWER: Final = re.compile(r"<answer>\s*([12])\s*</answer>")


class R1RewardRL(FileDataset):
    """R1-Reward's data for reinforcement learning (arXiv 2505.02835): `yifanzhang114/R1-Reward-RL`.

    `message` is JSON text of a chat that holds images and, under `[Response 1]` and `[Response 2]`, both
    responses; `question` is the question, `answer` a list of `<answer>1</answer>` or `<answer>2</answer>`.
    The paths of the images are those of its authors: put the images beside the file and adapt them, as
    their README says.
    """

    name = "r1-reward-rl"
    published_responses = 2
    detected_by = ("message", "question", "answer")
    columns: Mapping[str, str] = {
        "message": "the judge's prompt, with images and both responses",
        "question": "the question",
        "answer": "the better response, <answer>1</answer> or <answer>2</answer>",
        "id": "names the row",
    }

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        answers = as_list(row.get("answer"))
        answer = ANSWER.fullmatch(answers[0].strip()) if answers and isinstance(answers[0], str) else None
        if answer is None:
            raise DataError("<answer>1</answer> or <answer>2</answer> is needed", field="answer")
        turns = turns_of(parsed_json(row.get("message"), "message"), "message")
        parts = [part for turn in turns for part in _parts(turn["content"])]
        texts = "\n".join(str(part["text"]) for part in parts if isinstance(part.get("text"), str))
        match = RESPONSES.search(texts[:MAX_CHARACTERS])
        if match is None:
            raise DataError("has no [Response 1] and [Response 2]", field="message")
        return {
            "id": name_of(row, "id"),
            "prompt": text_of(row, "question").replace("<image>", "").strip(),
            "images": [part["image"] for part in parts if part.get("image") is not None],
            "videos": [part["video"] for part in parts if part.get("video") is not None],
            "responses": [match["first"], match["second"]],
            "ranks": [0, 1] if answer.group(1) == "1" else [1, 0],
        }


def _parts(content: str | list[Any]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}]
    return [part for part in content if isinstance(part, dict)]
