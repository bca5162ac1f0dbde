"""`POST /rerank`: Cohere's API as vLLM (0.33) has it, with `documents`, and TEI's (2026-07), with `texts`."""

from __future__ import annotations

from typing import Any

import msgspec

from basereward.serving.apis.base import Api, RefusedFields, ScoringResponse, activated
from basereward.serving.apis.chat import ContentPart, Side, Usage, document_of, query_of, usage_of
from basereward.serving.problems import Problem
from basereward.serving.request_parser import RequestParser, ScoringRequest


class RerankRequest(RefusedFields, kw_only=True):
    """A query and its `documents`, or its `texts` in TEI's form.

    TEI's scores are sigmoids of rewards unless it asks for `raw_scores`; vLLM's are rewards. Limits of tokens
    are ignored, since long texts are refused and not cut; documents are returned in vLLM's form alone.
    """

    query: Side
    documents: list[Side] | None = None
    model: str | None = None
    top_n: int = 0
    texts: list[str] | None = None
    raw_scores: bool = False
    return_text: bool = False


class Document(msgspec.Struct):
    """A document as it was sent."""

    text: str | None
    multi_modal: list[ContentPart] | None


class Ranked(msgspec.Struct):
    """A document with its index in the request and its reward."""

    index: int
    document: Document
    relevance_score: float


class RerankResponse(msgspec.Struct):
    """vLLM's response, best first."""

    id: str
    model: str
    usage: Usage
    results: list[Ranked]


class RankedText(msgspec.Struct, omit_defaults=True):
    """An entry of TEI's response, best first."""

    index: int
    score: float
    text: str | None = None


class Rerank(Api):
    """`POST /rerank`."""

    paths = ("/rerank", "/v1/rerank", "/v2/rerank")
    summary = "vLLM and TEI: documents, taken for responses to the query, best first"
    request_type = RerankRequest
    response_types = (RerankResponse, list[RankedText])

    def parse(self, body: RerankRequest, parser: RequestParser) -> ScoringRequest:
        """Parse the query as a prompt and the documents as its responses."""
        if (body.documents is None) == (body.texts is None):
            raise Problem("body_not_valid")
        documents = [document_of(side) for side in body.documents or body.texts or []]
        items = parser.each(
            [body.query], lambda query: parser.comparison(query_of(query, parser), documents), "query"
        )
        return ScoringRequest(items, body.model)

    def write(self, body: RerankRequest, response: ScoringResponse) -> Any:
        """Write the documents, best first; those with equal rewards in the order of the request."""
        rewards = response.rewards
        order = sorted(range(len(rewards)), key=lambda index: (-rewards[index], index))
        if body.texts is not None:
            return [
                RankedText(
                    index,
                    activated(rewards[index], is_asked=not body.raw_scores),
                    body.texts[index] if body.return_text else None,
                )
                for index in order
            ]
        documents = body.documents or []
        results = [
            Ranked(index, _document(documents[index]), rewards[index])
            for index in order[: body.top_n if body.top_n > 0 else None]
        ]
        return RerankResponse(response.id, response.engine.name, usage_of(response), results)


def _document(side: Side) -> Document:
    return Document(side, None) if isinstance(side, str) else Document(None, side.content)
