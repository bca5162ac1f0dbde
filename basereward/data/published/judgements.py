"""Data sets of judgements, in which question and responses stand in the text that a judge was given."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from basereward.data.dataset import FileDataset
from basereward.data.fields import as_list, loaded, name_of, plain, text_of, turns_of
from basereward.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from basereward.data.reading.row import Row

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
"""What a judge was given is at most so long; longer texts could keep a search busy for minutes."""


class LLaVACritic(FileDataset):
    """LLaVA-Critic-113k (arXiv 2410.02712): judgements by GPT-4o; `config` is `pairwise` or `pointwise`.

    The first turn of `conversations` holds question and responses, in one of four forms; the second the
    verdict. Of two responses the better one is ranked first, two equally good ones are tied, and two scores
    become ratings. A scored caption becomes one response with its rating. Other forms are refused.
    """

    name = "llava-critic"

    def own_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        turns = turns_of(row.get("conversations"), "conversations")
        if len(turns) != 2 or not all(isinstance(turn["content"], str) for turn in turns):
            raise DataError("what was judged and the verdict are needed, as two texts", field="conversations")
        given, verdict = (turn["content"][:MAX_CHARACTERS] for turn in turns)
        return {
            "id": name_of(row, "id"),
            "images": as_list(row.get("image")),
            **judged(given.replace("<image>", "").strip(), verdict),
            "meta": plain(row, "source"),
        }


def judged(given: str, verdict: str) -> Row:
    """Return question, responses and ranks or ratings of what a judge was given, and said.

    Raises:
        DataError: When either has a form that is not known.
    """
    if found := BRACKETS.search(given):
        if better := BETTER.search(verdict):
            is_first = better.group(1).lower() in ("first", "1", "a")
            return _pair(found, ranks=[0, 1] if is_first else [1, 0])
        if "equally good" in verdict[-300:]:
            return _pair(found, ranks=[0, 0])
    elif found := ARENA.search(given):
        if verdicts := VERDICT.findall(verdict):
            last = verdicts[-1]
            return _pair(found, ranks=[0, 0] if "=" in last else [0, 1] if last[0] == "A" else [1, 0])
    elif found := LLAVA_BENCH.search(given):
        if scores := TWO_SCORES.match(verdict):
            return _pair(found, ratings=[float(score) for score in scores.groups()])
    elif (found := CAPTION.search(given)) and (scores_of_caption := FINAL_SCORE.findall(verdict)):
        return {
            "prompt": CAPTION_QUESTION,
            "responses": [found["caption"]],
            "ratings": [float(scores_of_caption[-1])],
        }
    raise DataError("question, responses or verdict are of no known form", field="conversations")


def _pair(found: re.Match[str], **known: Any) -> Row:
    return {
        "prompt": found["question"].strip(),
        "responses": [found["first"].strip(), found["second"].strip()],
        **known,
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
    detected_by = ("message", "question", "answer")

    def own_row(self, row: Row, directory: Path) -> Row:
        """Return the row in our own format."""
        answers = as_list(row.get("answer"))
        answer = ANSWER.fullmatch(answers[0].strip()) if answers and isinstance(answers[0], str) else None
        if answer is None:
            raise DataError("<answer>1</answer> or <answer>2</answer> is needed", field="answer")
        turns = turns_of(loaded(row.get("message"), "message"), "message")
        parts = [part for turn in turns for part in _parts(turn["content"])]
        texts = "\n".join(str(part["text"]) for part in parts if isinstance(part.get("text"), str))
        found = RESPONSES.search(texts[:MAX_CHARACTERS])
        if found is None:
            raise DataError("has no [Response 1] and [Response 2]", field="message")
        return {
            "id": name_of(row, "id"),
            "prompt": text_of(row, "question").replace("<image>", "").strip(),
            "images": [part["image"] for part in parts if part.get("image") is not None],
            "videos": [part["video"] for part in parts if part.get("video") is not None],
            "responses": [found["first"], found["second"]],
            "ranks": [0, 1] if answer.group(1) == "1" else [1, 0],
        }


def _parts(content: str | list[Any]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}]
    return [part for part in content if isinstance(part, dict)]
