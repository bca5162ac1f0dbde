"""The OpenAPI document, made of the very types that requests are decoded into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from basereward._version import __version__
from basereward.serving.apis.base import Dialect, ErrorResponse
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
"""What GET answers: what it is, its type, and its statuses."""


def document(dialects: Sequence[Dialect]) -> dict[str, Any]:
    """Return the document of a server that speaks these APIs."""
    types = [ErrorResponse]
    for dialect in dialects:
        types += [dialect.request, *dialect.responses, dialect.failure]
    unique = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    of_type = dict(zip(unique, schemas, strict=True))
    paths: dict[str, Any] = {}
    for path, (summary, kind, statuses) in INFORMATION.items():
        answers: dict[str, Any] = {
            str(status): {"description": summary, "content": {kind: {"schema": {}}}} for status in statuses
        }
        paths[path] = {"get": _operation(path, summary, answers, of_type[ErrorResponse], (401, 403))}
    refusals = sorted({status for status, _ in PROBLEMS.values()} - {404, 405})
    for dialect in dialects:
        forms = [of_type[own] for own in dialect.responses]
        schema = forms[0] if len(forms) == 1 else {"anyOf": forms}
        for path in dialect.paths:
            answers = {"200": {"description": "Rewards", "content": {"application/json": {"schema": schema}}}}
            names = dialect.request.__struct_fields__
            refused_with = [*refusals, 404] if "model" in names else refusals
            operation = _operation(path, dialect.summary, answers, of_type[dialect.failure], refused_with)
            operation["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": of_type[dialect.request]}},
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
    path: str, summary: str, answers: dict[str, Any], failure: dict[str, Any], refused_with: Sequence[int]
) -> dict[str, Any]:
    """Return what a path does, with the problems it may have."""
    refused = {
        str(status): {
            "description": "; ".join(code for code, (own, _) in PROBLEMS.items() if own == status),
            "content": {"application/json": {"schema": failure}},
        }
        for status in sorted(refused_with)
    }
    open_to_all = path in OPEN
    return {
        "operationId": path.strip("/").replace("/", "_").replace(".", "_"),
        "summary": summary,
        "responses": answers if open_to_all else {**answers, **refused},
        **({} if open_to_all else {"security": [{}, {"key": []}]}),
    }
