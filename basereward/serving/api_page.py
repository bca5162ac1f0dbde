"""The page of the server's API, made of its OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from basereward.reporting.html import environment

REFERENCE = "#/components/schemas/"


@dataclass(frozen=True)
class TypePart:
    """A part of a type's text; `name` is the schema that it links to, or empty."""

    text: str
    name: str = ""


def api_page(document: Mapping[str, Any]) -> str:
    """Return a document as HTML, with `NONCE` where its style has a nonce.

    Args:
        document: An OpenAPI document whose schemas are named.
    """
    template = environment().get_template("api.html")
    return template.render(
        document=document, schemas=document["components"]["schemas"], type_parts=type_parts
    )


def type_parts(schema: Mapping[str, Any]) -> list[TypePart]:
    """Return a JSON schema as a type: `list of string or null`, with links to the schemas that it names."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(REFERENCE)
        return [TypePart(name, name)]
    if "anyOf" in schema:
        parts: list[TypePart] = []
        for choice in schema["anyOf"]:
            parts += [*([TypePart(" or ")] if parts else []), *type_parts(choice)]
        return parts
    if "enum" in schema:
        return [TypePart(" or ".join(f'"{value}"' for value in schema["enum"]))]
    if schema.get("type") == "array":
        return [TypePart("list of "), *type_parts(schema.get("items", {}))]
    if isinstance(inner := schema.get("additionalProperties"), Mapping):
        return [TypePart("object of "), *type_parts(inner)]
    return [TypePart(schema.get("type", "anything"))]
