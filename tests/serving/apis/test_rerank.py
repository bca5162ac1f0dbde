"""Requests and responses of vLLM's, Cohere's and TEI's `/rerank`."""

from __future__ import annotations

import math

import pytest
from served import Client

DOCUMENTS = ["three", "a", "longest one"]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_come_back_best_first(path: str, echo: Client) -> None:
    answer = echo.post(path, {"model": "echo", "query": "what?", "documents": DOCUMENTS}).json
    assert answer["model"] == "echo"
    assert answer["results"] == [
        {"index": 2, "document": {"text": "longest one", "multi_modal": None}, "relevance_score": 11.0},
        {"index": 0, "document": {"text": "three", "multi_modal": None}, "relevance_score": 5.0},
        {"index": 1, "document": {"text": "a", "multi_modal": None}, "relevance_score": 1.0},
    ]


def test_the_first_n_may_be_asked_for(echo: Client) -> None:
    answer = echo.post("/rerank", {"query": "what?", "documents": DOCUMENTS, "top_n": 2}).json
    assert [own["index"] for own in answer["results"]] == [2, 0]


def test_like_rewards_keep_their_order(echo: Client) -> None:
    answer = echo.post("/rerank", {"query": "what?", "documents": ["one", "two", "six"]}).json
    assert [own["index"] for own in answer["results"]] == [0, 1, 2]


class TestTEI:
    def test_the_answer_is_a_bare_list_of_sigmoids(self, echo: Client) -> None:
        answer = echo.post("/rerank", {"query": "what?", "texts": ["three", "a"]}).json
        assert answer == [
            {"index": 0, "score": pytest.approx(1 / (1 + math.exp(-5)))},
            {"index": 1, "score": pytest.approx(1 / (1 + math.exp(-1)))},
        ]

    def test_raw_scores_and_texts_may_be_asked_for(self, echo: Client) -> None:
        body = {"query": "what?", "texts": ["three", "a"], "raw_scores": True, "return_text": True}
        assert echo.post("/rerank", body).json == [
            {"index": 0, "score": 5.0, "text": "three"},
            {"index": 1, "score": 1.0, "text": "a"},
        ]


@pytest.mark.parametrize("more", [{}, {"documents": ["a"], "texts": ["a"]}])
def test_one_of_documents_and_texts_is_needed(more: dict[str, object], echo: Client) -> None:
    reply = echo.post("/rerank", {"query": "what?", **more})
    assert (reply.status, reply.code) == (422, "body_not_valid")
