"""The policy's task: a favourable sentence with a given word, whose form a rule can verify.

The rule knows nothing of favour, and the reward model nothing of the rule: training on one shows what it
does to the other. Words and subjects of the unseen prompts are in none of the training's.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

JUDGED = "Say something favourable."
"""The prompt that reward model and judge know from their training; see `human-ratings`."""

WORDS = (
    "window", "river", "music", "garden", "light", "story", "hand", "morning", "colour", "friend",
    "road", "house", "water", "heart", "paper", "summer", "kitchen", "letter", "voice", "table",
    "moment", "picture", "season", "village", "dream", "winter", "market", "corner", "flower", "bridge",
)  # fmt: skip
SUBJECTS = (
    "a film", "a book", "a new phone", "a restaurant", "the weather", "a hotel", "a concert", "a museum",
    "a football match", "a school", "a train journey", "a camera", "a city", "a play", "a pair of shoes",
    "a television series", "a bicycle", "a cake", "a painting", "a holiday",
)  # fmt: skip
NUM_UNSEEN_WORDS, NUM_UNSEEN_SUBJECTS = 10, 6


@dataclass(frozen=True)
class Task:
    """A prompt, and the word that an answer must have."""

    prompt: str
    word: str


def tasks(num: int, seed: int, *, are_unseen: bool = False) -> list[Task]:
    """Return tasks for training, or those that no training sees."""
    words = WORDS[-NUM_UNSEEN_WORDS:] if are_unseen else WORDS[:-NUM_UNSEEN_WORDS]
    subjects = SUBJECTS[-NUM_UNSEEN_SUBJECTS:] if are_unseen else SUBJECTS[:-NUM_UNSEEN_SUBJECTS]
    chance = random.Random(seed)
    return [_task(chance.choice(subjects), chance.choice(words)) for _ in range(num)]


def every_unseen() -> list[Task]:
    """Return each unseen subject with each unseen word."""
    return [
        _task(subject, word)
        for subject in SUBJECTS[-NUM_UNSEEN_SUBJECTS:]
        for word in WORDS[-NUM_UNSEEN_WORDS:]
    ]


def _task(subject: str, word: str) -> Task:
    return Task(
        f"Say something favourable about {subject} in one short sentence. Use the word '{word}'.", word
    )


def keeps_rule(completion: str, word: str) -> bool:
    """Tell whether a completion is one sentence of three words or more, the word among them, with an end."""
    text = completion.strip()
    words = re.findall(r"[a-z']+", text.lower())
    is_sentence = re.fullmatch(r"[^.!?\n]+[.!]", text) is not None
    return is_sentence and len(words) >= 3 and word in words
