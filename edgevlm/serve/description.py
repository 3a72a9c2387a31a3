"""`/openapi.json`: the server's own description, made of the structs that it reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from edgevlm.serve.fields import ChatRequest
from edgevlm.serve.replies import Chunk, Completion, ErrorReply, ModelCard, ModelList

STRUCTS = (ChatRequest, Completion, Chunk, ErrorReply, ModelCard, ModelList)
REFUSED = {
    "400": "What is asked cannot be: `param` names the field.",
    "401": "No token, or a wrong one.",
    "403": "Another site's request, or by a name that is not this machine's.",
    "404": "No such model, or no such address.",
    "405": "Another method.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "429": "Too many requests wait; `Retry-After` says when to come again.",
    "500": "The server failed.",
    "503": "The server is stopping.",
}
SCHEMAS = "#/components/schemas/"
GUARDED = ("401", "403", "405")


def description(version: str, models: Sequence[str], token: bool) -> dict[str, Any]:
    """An OpenAPI 3.2 document. `models`: names of what is served; `token`: whether requests need one."""
    names = {"type": "string", "enum": list(models)}
    _, components = msgspec.json.schema_components(STRUCTS, ref_template=SCHEMAS + "{name}")
    components["ChatRequest"]["properties"]["model"] = names
    document: dict[str, Any] = {
        "openapi": "3.2.0",
        "info": {"title": "edgevlm serve", "version": version, "description": "Questions about images, as OpenAI's."},
        "paths": _paths(names),
        "components": {"schemas": components},
    }
    if token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        for path in ("/health", "/ready"):
            document["paths"][path]["get"]["security"] = []
    return document


def _paths(names: dict[str, Any]) -> dict[str, Any]:
    name = {"name": "model", "in": "path", "required": True, "schema": names}
    return {
        "/v1/chat/completions": {"post": _chat()},
        "/v1/models": {"get": _get("Bundles that are served.", _json("ModelList"))},
        "/v1/models/{model}": {
            "get": {**_get("One of them.", _json("ModelCard"), "404"), "parameters": [name]},
        },
        "/health": {"get": _get("Whether it answers.", _text(), failing="503")},
        "/ready": {"get": _get("Whether it takes requests.", _text(), failing="503")},
        "/metrics": {"get": _get("What it counted, for Prometheus.", _text())},
        "/openapi.json": {"get": _get("This.", {"application/json": {"schema": {"type": "object"}}})},
    }


def _chat() -> dict[str, Any]:
    told = {"anyOf": [{"$ref": f"{SCHEMAS}Chunk"}, {"$ref": f"{SCHEMAS}ErrorReply"}]}
    chunk = {"type": "string", "contentMediaType": "application/json", "contentSchema": told}
    event = {"type": "object", "properties": {"data": {"anyOf": [chunk, {"const": "[DONE]"}]}}, "required": ["data"]}
    answer = {**_json("Completion"), "text/event-stream": {"itemSchema": event}}
    return {
        "summary": "An answer, whole or as server-sent events (each a Chunk; the last is [DONE]).",
        "requestBody": {"required": True, "content": _json("ChatRequest")},
        "responses": {"200": {"description": "The answer.", "content": answer}, **_refusals(*REFUSED)},
    }


def _get(summary: str, content: dict[str, Any], *more: str, failing: str | None = None) -> dict[str, Any]:
    responses = {"200": {"description": summary, "content": content}, **_refusals(*GUARDED, *more)}
    if failing is not None:
        responses[failing] = {"description": "Not now.", "content": _text()}
    return {"summary": summary, "responses": responses}


def _refusals(*statuses: str) -> dict[str, Any]:
    return {status: {"description": REFUSED[status], "content": _json("ErrorReply")} for status in statuses}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"{SCHEMAS}{name}"}}}


def _text() -> dict[str, Any]:
    return {"text/plain": {"schema": {"type": "string"}}}
