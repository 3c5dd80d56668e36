"""A service described: OpenAPI for programs, and the fields of a form. Knows cases only."""

from __future__ import annotations

from typing import Any

from lepton_lib.cases import Case
from lepton_lib.cases.records import example_record
from lepton_lib.serving.codec import RECORD_LIMIT
from lepton_lib.serving.problems import JSON, PROBLEM

_PROBLEMS = {
    400: "Not JSON",
    401: "No valid key, where keys are demanded",
    405: "Not a POST",
    408: "The request took too long",
    413: "A body over 1 MiB",
    415: "Another content type",
    422: "A record that the case refuses: which record, which field, got, expected",
    429: "More requests a second than the key allows",
    503: "Too many requests at once, or the answer could not be kept, and is not given",
}
_NUMBER, _TEXT = {"type": "number"}, {"type": "string"}
_OTHERS = {  # path: what it is called, what it gives, as what
    "/healthz": ("Healthz", "The process is alive.", JSON),
    "/readyz": ("Readyz", "Predictions can be made and kept.", JSON),
    "/v1/models": ("Models", "The model that answers, and a release that was refused.", JSON),
    "/metrics": ("Metrics", "Counts and times, as Prometheus reads them.", "text/plain"),
}


def describe_service(case: Case, version: str) -> dict[str, Any]:
    """The service's description (OpenAPI 3.1)."""
    paths: dict[str, Any] = {path: _describe_get(path, *of) for path, of in _OTHERS.items()}
    paths["/v1/predict"] = describe_predict(case)
    info = {"title": case.title, "summary": case.question, "version": version}
    return {"openapi": "3.1.0", "info": info, "paths": paths}


def _describe_get(path: str, name: str, description: str, media_type: str) -> dict[str, Any]:
    schema = _TEXT if media_type == "text/plain" else {"type": "object"}
    content = {media_type: {"schema": schema}}
    return {
        "get": {
            "summary": name,
            "description": description,
            "operationId": f"{name.lower()}{path.replace('/', '_')}_get",
            "responses": {"200": {"description": "Successful Response", "content": content}},
        }
    }


def describe_predict(case: Case) -> dict[str, Any]:
    """The path item of ``POST /v1/predict``: names, units, ranges, categories from case.toml."""
    example = {"schema": _body(case), "example": {"records": [example_record(case)]}}
    predictions = {"type": "array", "items": _prediction(case)}
    answer = _object(request_id=_TEXT, model_version=_TEXT, predictions=predictions)
    problem = _object(title=_TEXT, status={"type": "integer"}, detail=_TEXT, request_id=_TEXT)
    problem["properties"] |= {"record": {"type": "integer"}, "field": _TEXT}
    good = {"description": "One prediction a record", "content": {JSON: {"schema": answer}}}
    bad = {"content": {PROBLEM: {"schema": problem}}}
    explain = {
        "name": "explain",
        "in": "query",
        "schema": {"type": "boolean", "default": False},
        "description": "Add each field's share in the answer",
    }
    return {
        "post": {
            "summary": case.question,
            "operationId": "predict",
            "parameters": [explain],
            "security": [{}, {"key": []}],
            "requestBody": {"required": True, "content": {JSON: example}},
            "responses": {
                "200": good,
                **{str(status): {"description": why, **bad} for status, why in _PROBLEMS.items()},
            },
        }
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _body(case: Case) -> dict[str, Any]:
    record = {
        "type": "object",
        "title": case.data.row,
        "properties": {column.name: column.json_schema() for column in case.inputs},
        "required": [column.name for column in case.inputs if not column.nullable],
        "additionalProperties": False,
    }
    records = {"type": "array", "items": record, "minItems": 1, "maxItems": RECORD_LIMIT}
    return _object(records=records) | {"additionalProperties": False}


def _prediction(case: Case) -> dict[str, Any]:
    shares = {
        "type": "object",
        "additionalProperties": _NUMBER,
        "description": "By field; with base they add up to value",
    }
    reasons = _object(of=_TEXT, base=_NUMBER, value=_NUMBER, contributions=shares)
    if not case.classes:
        number = _NUMBER | {"x-unit": case.target.unit}
        schema = _object(id=_TEXT, prediction=number, unit=_TEXT)
    else:
        share = {"type": "number", "minimum": 0, "maximum": 1.000001}  # float32 may round up
        probabilities = _object(**dict.fromkeys(case.classes, share))
        name = {"type": "string", "enum": list(case.classes)}
        schema = _object(**{"id": _TEXT, "class": name, "probabilities": probabilities})
    optional = schema["properties"]
    optional["reasons"] = reasons
    if case.costs and case.costs.decisions:
        optional["action"] = {"type": "string", "enum": list(case.costs.decisions.values())}
    if case.bands:
        optional["band"] = {"type": "string", "enum": list(case.bands.names)}
    return schema
