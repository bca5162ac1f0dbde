"""`POST /score` of vLLM (0.33): documents are scored as responses, and queries as their prompts."""

from __future__ import annotations

import msgspec

from basereward.serving.apis.base import Api, RefusedFields, ScoringResponse
from basereward.serving.apis.chat import Side, Usage, as_list, document_of, query_of, usage_of
from basereward.serving.problems import Problem
from basereward.serving.request_parser import RequestParser, ScoringRequest


class ScoreRequest(RefusedFields, kw_only=True):
    """Two sides, under one of their four pairs of names: one query and N documents, or N of each.

    `max_tokens_per_query` and `max_tokens_per_doc` are ignored: long texts are refused, not cut.
    """

    model: str | None = None
    queries: Side | list[Side] | None = None
    documents: Side | list[Side] | None = None
    items: Side | list[Side] | None = None
    data_1: Side | list[Side] | None = None
    data_2: Side | list[Side] | None = None
    text_1: Side | list[Side] | None = None
    text_2: Side | list[Side] | None = None


class Score(msgspec.Struct):
    """The reward of a document."""

    index: int
    score: float
    object: str = "score"


class ScoreResponse(msgspec.Struct):
    """vLLM's response."""

    id: str
    created: int
    model: str
    data: list[Score]
    usage: Usage
    object: str = "list"


class Scores(Api):
    """`POST /score`."""

    paths = ("/score", "/v1/score")
    summary = "vLLM: rewards of documents, taken for responses to queries"
    request_type = ScoreRequest
    response_types = (ScoreResponse,)

    def parse(self, body: ScoreRequest, parser: RequestParser) -> ScoringRequest:
        """Parse one query with N documents as a prompt with N responses, and N queries with one each."""
        sides = (
            (body.queries, body.documents),
            (body.queries, body.items),
            (body.data_1, body.data_2),
            (body.text_1, body.text_2),
        )
        pairs = [
            (as_list(first), as_list(second))
            for first, second in sides
            if first is not None and second is not None
        ]
        names = {"queries", "documents", "items", "data_1", "data_2", "text_1", "text_2"}
        if len(pairs) != 1 or sum(getattr(body, name) is not None for name in names) != 2:
            raise Problem("body_not_valid")
        [(queries, documents)] = pairs
        if len(queries) == 1:
            rows = [(queries[0], documents)]
        elif len(queries) == len(documents):
            rows = [(query, [document]) for query, document in zip(queries, documents, strict=True)]
        else:
            raise Problem("body_not_valid")
        items = parser.each(
            rows,
            lambda row: parser.comparison(query_of(row[0], parser), list(map(document_of, row[1]))),
            "queries",
        )
        return ScoringRequest(items, body.model)

    def write(self, body: ScoreRequest, response: ScoringResponse) -> ScoreResponse:
        """Write each document's reward."""
        data = [Score(index, reward) for index, reward in enumerate(response.rewards)]
        return ScoreResponse(response.id, response.created, response.engine.name, data, usage_of(response))
