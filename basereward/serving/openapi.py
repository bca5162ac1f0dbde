"""The OpenAPI document, made of the types that requests are decoded into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from basereward._version import __version__
from basereward.serving.apis.base import Api, ErrorResponse
from basereward.serving.problems import PROBLEMS

OPEN = ("/health", "/ready")
"""Paths that need no key."""

INFORMATION = {
    "/health": ("Whether the process lives", "application/json", (200,)),
    "/ready": ("Whether requests are answered", "application/json", (200, 503)),
    "/v1/models": ("The models and their digests", "application/json", (200,)),
    "/metrics": ("What is counted, for Prometheus", "text/plain", (200,)),
    "/version": ("The version and the limits", "application/json", (200,)),
    "/openapi.json": ("This document", "application/json", (200,)),
}
"""The summary, media type and statuses of each GET path."""


def openapi_document(apis: Sequence[Api]) -> dict[str, Any]:
    """Return the document of a server with these APIs."""
    types: list[Any] = [ErrorResponse]
    for api in apis:
        types += [api.request_type, *api.response_types, api.error_type]
    unique = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(unique, schemas, strict=True))
    paths: dict[str, Any] = {}
    for path, (summary, media_type, statuses) in INFORMATION.items():
        successes = {
            str(status): {"description": summary, "content": {media_type: {"schema": {}}}}
            for status in statuses
        }
        paths[path] = {"get": _operation(path, summary, successes, schema_of[ErrorResponse], (401, 403))}
    failures = sorted({status for status, _ in PROBLEMS.values()} - {404, 405})
    for api in apis:
        forms = [schema_of[kind] for kind in api.response_types]
        success = _json_content("Rewards", forms[0] if len(forms) == 1 else {"anyOf": forms})
        refused_with = [*failures, 404] if "model" in api.request_type.__struct_fields__ else failures
        for path in api.paths:
            operation = _operation(
                path, api.summary, {"200": success}, schema_of[api.error_type], refused_with
            )
            operation["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": schema_of[api.request_type]}},
            }
            paths[path] = {"post": operation}
    return {
        "openapi": "3.1.0",
        "info": {"title": "BaseReward", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    path: str,
    summary: str,
    successes: dict[str, Any],
    error_schema: dict[str, Any],
    error_statuses: Sequence[int],
) -> dict[str, Any]:
    """Return the operation of a path, with its problems by status."""
    is_open = path in OPEN
    errors = {
        str(status): _json_content(
            "; ".join(code for code, (of_code, _) in PROBLEMS.items() if of_code == status), error_schema
        )
        for status in sorted(error_statuses)
    }
    return {
        "operationId": path.strip("/").replace("/", "_").replace(".", "_"),
        "summary": summary,
        "responses": successes if is_open else {**successes, **errors},
        **({} if is_open else {"security": [{}, {"key": []}]}),
    }


def _json_content(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
