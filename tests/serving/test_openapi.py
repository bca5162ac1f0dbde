"""The OpenAPI document, the page, and what else GET answers."""

from __future__ import annotations

import re
from html import unescape

from served import Client

from basereward.serving.apis import apis
from basereward.serving.openapi import INFORMATION


def test_every_path_is_in_the_document_and_answers(echo: Client) -> None:
    document = echo.get("/openapi.json").json
    assert document["openapi"] == "3.1.0"
    posts = {path for path, operations in document["paths"].items() if "post" in operations}
    assert posts == {path for api in apis() for path in api.paths}
    for path in INFORMATION:
        assert echo.get(path).status == 200
    for path in posts:
        assert echo.post(path, {}).status == 422


def test_every_reference_of_the_document_is_in_it(echo: Client) -> None:
    reply = echo.get("/openapi.json")
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', reply.text))
    assert named == set(reply.json["components"]["schemas"])


def test_names_of_operations_are_unique(echo: Client) -> None:
    paths = echo.get("/openapi.json").json["paths"]
    names = [operation["operationId"] for operations in paths.values() for operation in operations.values()]
    assert len(set(names)) == len(names)


def test_required_fields_are_those_of_the_types(echo: Client) -> None:
    schemas = echo.get("/openapi.json").json["components"]["schemas"]
    assert schemas["RewardsRequest"]["required"] == ["items"]
    assert schemas["RewardsRequest"]["additionalProperties"] is False
    assert schemas["GetRewardRequest"]["required"] == ["query"]


def test_the_document_is_valid(echo: Client) -> None:
    from openapi_spec_validator import OpenAPIV31SpecValidator

    document = echo.get("/openapi.json").json
    assert document["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_metrics_are_read_by_prometheus(echo: Client) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    echo.rewards({"prompt": "x", "responses": ["a", "b"]})
    reply = echo.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }
    assert samples["basereward_responses_total"] >= 2
    assert samples["basereward_pass_seconds_count"] >= 1
    assert samples["basereward_answering"] == 0


def test_the_page_loads_nothing_from_elsewhere(echo: Client) -> None:
    page = echo.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert re.findall(r"https?://|src=|@import|url\(", page.text) == []
    [nonce] = set(re.findall(r'nonce="([^"]+)"', page.text))
    assert f"script-src 'nonce-{nonce}'" in page.headers["content-security-policy"]
    assert nonce not in echo.get("/").text


def test_docs_has_every_path_and_object_and_loads_nothing(echo: Client) -> None:
    document = echo.get("/openapi.json").json
    page = echo.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert re.findall(r"https?://|src=|@import|url\(|<script", page.text) == []
    for path, operations in document["paths"].items():
        assert f"<code>{path}</code>" in page.text
        for operation in operations.values():
            assert operation["summary"] in unescape(page.text)
    for name, schema in document["components"]["schemas"].items():
        assert f'id="{name}"' in page.text
        for field in schema["properties"]:
            assert f"<td>{field}</td>" in page.text
    [nonce] = set(re.findall(r'nonce="([^"]+)"', page.text))
    assert f"style-src 'nonce-{nonce}'" in page.headers["content-security-policy"]
    assert nonce not in echo.get("/docs").text


def test_types_are_read_as_they_are_said(echo: Client) -> None:
    row = re.search(r"<tr><td>prompt</td><td>(.*?)</td><td>(.*?)</td>", echo.get("/docs").text, re.DOTALL)
    assert row is not None
    said, default = (" ".join(part.split()) for part in row.groups())
    assert said == 'string or list of <a href="#ChatMessage">ChatMessage</a> or null'
    assert default == "null"


def test_every_link_of_docs_leads_somewhere(echo: Client) -> None:
    text = echo.get("/docs").text
    links = set(re.findall(r'href="([^"]+)"', text))
    assert links - {f"#{name}" for name in re.findall(r'id="([^"]+)"', text)} == {"openapi.json", "./"}
