"""The ways by which inputs of reports reach BaseReward, each a function of plain values."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import tiny
from PIL import Image as Pillow

from basereward import Comparison
from basereward.backbones.base import TokenLimit
from basereward.backbones.chat_template import Chat
from basereward.backbones.template_source import chosen_template, frozen_template
from basereward.data.curation.near_duplicates import NearDuplicates
from basereward.data.formats import DetectedDataset
from basereward.data.rendered_chat import continued
from basereward.errors import DataError
from basereward.integrations import ms_swift, openrlhf, slime
from basereward.integrations.completions import CompletionScorer
from basereward.integrations.judge_grpo import format_reward, r1_reward, verdict_reward
from basereward.integrations.rules import choice_letter
from basereward.integrations.shaping import group_normalized
from basereward.integrations.trl import reward_func
from basereward.media import Image
from basereward.message import Message
from basereward.serving.apis import apis
from basereward.serving.apis.base import refuse_given
from basereward.serving.limits import Limits
from basereward.serving.problems import Problem
from basereward.serving.request_parser import RequestParser
from basereward.serving.service import _decoded

RED, BLUE = (Pillow.new("RGB", (2, 2), colour) for colour in ("red", "blue"))


def redness(comparisons: Sequence[Comparison]) -> list[list[float] | DataError]:
    """Reward red images, 255 each, and every character of a response."""
    return [
        [
            float(sum(image.open().getpixel((0, 0))[0] for image in each.images) + len(text))  # type: ignore[index]
            for text in each.responses
        ]
        for each in comparisons
    ]


def trl(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
    """Return the rewards that TRL is given."""
    ids = [[0]] * len(prompts)
    return reward_func(redness)(prompts=prompts, completions=completions, completion_ids=ids, **columns)


def swift(messages: list[list[dict[str, Any]]], **columns: Any) -> list[float | None]:
    """Return the rewards that ms-swift is given."""
    rewards: list[float | None] = ms_swift.orm(redness)()([""] * len(messages), messages=messages, **columns)
    return rewards


def open_rlhf(prompt: str, response: str) -> list[float]:
    """Return the rewards that OpenRLHF is given."""
    rewards: list[float] = openrlhf.reward_func(redness)([prompt + response], [prompt], [None])[
        "rewards"
    ].tolist()
    return rewards


def in_slime(prompt: Any, response: str) -> float | list[float]:
    """Return the reward that slime is given."""
    sample = SimpleNamespace(
        prompt=prompt, response=response, response_length=1, label=None, metadata={}, multimodal_inputs=None
    )
    return asyncio.run(slime.custom_rm(redness)(None, sample))  # type: ignore[arg-type]


def normalized(prompts: list[Any], texts: list[str], images: list[list[Any]]) -> list[float | None]:
    """Return rewards normalized within each prompt, rounded."""
    scorer = CompletionScorer(redness, shapes=[group_normalized(epsilon=1e-9)])
    _, shaped = scorer.score(prompts, texts, images=images, lengths=[1] * len(texts), columns={})
    return [None if reward is None else round(reward, 3) for reward in shaped]


def kept_rows(*prompts: list[Message]) -> int:
    """Return how many rows of prompts, with the same responses, are no duplicates."""
    step = NearDuplicates()
    rows = [Comparison(prompt, ["a cat", "a dog"], ranks=[0, 1]) for prompt in prompts]
    return sum(isinstance(step(row), Comparison) for row in rows)


def identities(*prompts: Any) -> int:
    """Return how many different prompts there are for grouping, caches and the server."""
    return len({Comparison(prompt, ["a"]).prompt_identity() for prompt in prompts})


def text(template: str, *turns: tuple[str, str], response: str = "a cat") -> str:
    """Return the text of the tokens of a conversation."""
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    ids, [own] = Chat(tokenizer).encode([Message(role, (said,)) for role, said in turns], [response])
    return str(tokenizer.decode(ids + own))


def num_texts(template: str, days: Sequence[str]) -> int:
    """Return how many texts a template makes of one conversation on some days."""
    texts = set()
    for day in days:
        with mock.patch("transformers.utils.chat_template_utils.datetime") as clock:
            clock.now.return_value = datetime.fromisoformat(day)
            texts.add(text(template, ("user", "what")))
    return len(texts)


def template_of(templates: Any, name: str = "default") -> str | None:
    """Return the template that is taken of a tokenizer's."""
    return chosen_template(templates, name)


def frozen(template: str) -> str:
    """Return a template as it is kept."""
    return frozen_template(template)


def cut(prompt: int, response: list[int], end: list[int], max_tokens: int) -> list[int]:
    """Return the tokens of a response that is cut."""
    [[fitted], _] = TokenLimit(max_tokens, "truncate").fit([0] * prompt, [response], end)
    return fitted


def turns(prompt: str, response: str) -> tuple[list[tuple[str, str]], str]:
    """Return the turns and the response of a rendered prompt."""
    parsed, answer = continued(prompt, response)
    return [(turn.role, turn.text) for turn in parsed], answer


def judged(completion: str, verdict: int, **columns: Any) -> tuple[float, float, float]:
    """Return the rewards of a judge's form, of its verdict, and R1-Reward's."""
    given: Any = ([completion], [verdict])
    return (
        format_reward([completion], **columns)[0],
        verdict_reward(*given, **columns)[0],
        r1_reward()(*given, **columns)[0],
    )


def row(row: Any) -> Any:
    """Return the turns, the number of images, the responses and the margins of a row beside `cat.png`."""
    with tempfile.TemporaryDirectory() as directory:
        for name in ("cat.png", "b.png"):
            RED.save(Path(directory, name))
        file = Path(directory, "rows.jsonl")
        file.write_text(json.dumps(row), encoding="utf-8")
        rows = DetectedDataset(file)
        rows.on_bad_row = "fail"
        try:
            [comparison] = rows
            for image in comparison.images:
                image.open()
        except DataError as error:
            raise DataError(error.reason.replace(directory, "."), field=error.field) from None
    turns = [(message.role, message.text) for message in comparison.prompt]
    margins = [pair.margin for pair in comparison.pairs()]
    return turns, len(comparison.images), comparison.responses, margins


def prompts(prompts: list[Any], *tools: Any) -> int:
    """Return how many prompts a model is asked, of prompts beside a column of tools."""
    asked = []

    def source(comparisons: Sequence[Comparison]) -> list[list[float] | DataError]:
        asked.extend(comparison.prompt_identity() for comparison in comparisons)
        return redness(comparisons)

    scorer = CompletionScorer(source)
    none: list[Sequence[object]] = [()] * len(prompts)
    scorer.score(
        prompts, ["a"] * len(prompts), images=none, lengths=[1] * len(prompts), columns={"tools": tools}
    )
    return len(asked)


def pixels(*sources: Any) -> int:
    """Return how many images of sources look different."""
    return len({Image(source).open().tobytes() for source in sources})


def request(path: str, body: dict[str, Any]) -> Any:
    """Return the comparisons of a request's body, or raise its problem as an error."""
    [api] = [api for api in apis() if path in api.paths]
    try:
        decoded = _decoded(json.dumps(body).encode(), api.request_type)
        refuse_given(decoded)
        items = api.parse(decoded, RequestParser(Limits())).items
        for item in items:
            if isinstance(item, Problem):
                raise item
        return [item.prompt_identity() for item in items if isinstance(item, Comparison)]
    except Problem as problem:
        raise DataError(f"{problem.code} {problem.param}") from None


def chosen(completion: str) -> str:
    """Return the letters that a completion is taken to choose."""
    return "".join(letter for letter in "ABCDEFGHI" if choice_letter(completion, letter))
