"""`POST /score`: vLLM's (0.33): how well documents answer queries, which here are responses to prompts."""

from __future__ import annotations

from typing import Any

import msgspec

from basereward.serving.apis.base import Answer, Dialect, refuse_given
from basereward.serving.apis.openai import Side, Usage, as_list, document_of, query_of, usage_of
from basereward.serving.problems import Problem
from basereward.serving.request_reader import Call, Reader

NAMES = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))
"""What the two sides of a request may be called."""


class ScoreRequest(msgspec.Struct):
    """Two sides, under one of their four pairs of names: one query and N documents, or N of each."""

    model: str | None = None
    queries: Side | list[Side] | None = None
    documents: Side | list[Side] | None = None
    items: Side | list[Side] | None = None
    data_1: Side | list[Side] | None = None
    data_2: Side | list[Side] | None = None
    text_1: Side | list[Side] | None = None
    text_2: Side | list[Side] | None = None
    instruction: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None


class Score(msgspec.Struct):
    """The reward of a document."""

    index: int
    score: float
    object: str = "score"


class ScoreResponse(msgspec.Struct):
    """vLLM's answer."""

    id: str
    created: int
    model: str
    data: list[Score]
    usage: Usage
    object: str = "list"


class Scores(Dialect):
    """`POST /score`."""

    paths = ("/score", "/v1/score")
    summary = "vLLM: rewards of documents, taken for responses to queries"
    request = ScoreRequest
    responses = (ScoreResponse,)

    def read(self, body: ScoreRequest, reader: Reader) -> Call:
        """Read one query with all its documents as one prompt with its responses; several one by one."""
        refuse_given(
            instruction=body.instruction,
            chat_template_kwargs=body.chat_template_kwargs,
            mm_processor_kwargs=body.mm_processor_kwargs,
        )
        given = [
            (as_list(first), as_list(second))
            for names in NAMES
            if None not in (first := getattr(body, names[0]), second := getattr(body, names[1]))
        ]
        if len(given) != 1:
            raise Problem("body_not_valid")
        [(queries, documents)] = given
        if len(queries) == 1:
            rows = [(queries[0], documents)]
        elif len(queries) == len(documents):
            rows = [(query, [document]) for query, document in zip(queries, documents, strict=True)]
        else:
            raise Problem("body_not_valid")
        items = reader.each(
            rows,
            lambda row: reader.comparison(query_of(row[0], reader), [document_of(own) for own in row[1]]),
            "queries",
        )
        return Call(items, body.model)

    def write(self, body: ScoreRequest, answer: Answer) -> ScoreResponse:
        """Write each document's reward."""
        data = [Score(index, own) for index, own in enumerate(answer.rewards)]
        return ScoreResponse(answer.id, answer.created, answer.engine.name, data, usage_of(answer))
