"""The OpenAPI description of the prediction route, made from a case. Knows cases only."""

from __future__ import annotations

from typing import Any

from lepton_lib.cases import Case, Column, example_record
from lepton_lib.cases.records import describe, limits
from lepton_lib.serving import problems as http

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


def describe_predict(case: Case, *, record_limit: int) -> dict[str, Any]:
    """The path item of ``POST /v1/predict`` (OpenAPI 3.1): names, units, ranges, categories from case.toml."""
    record = {
        "type": "object",
        "title": case.data.row,
        "properties": {column.name: _value(column) for column in case.inputs},
        "required": [column.name for column in case.inputs if not column.nullable],
        "additionalProperties": False,
    }
    records = {"type": "array", "items": record, "minItems": 1, "maxItems": record_limit}
    body = _object({"records": records}) | {"additionalProperties": False}
    predictions = {"type": "array", "items": _prediction(case)}
    answer = _object({"request_id": _TEXT, "model_version": _TEXT, "predictions": predictions})
    problem = _object(
        {"title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT, "request_id": _TEXT}
    )
    problem["properties"] |= {"record": {"type": "integer"}, "field": _TEXT}
    flag = {"type": "boolean", "default": False}
    parameters = [
        {
            "name": "explain",
            "in": "query",
            "schema": flag,
            "description": "Tell each field's share in the answer",
        },
    ]
    return {
        "post": {
            "summary": case.question,
            "operationId": "predict",
            "parameters": parameters,
            "security": [{}, {"key": []}],
            "requestBody": {
                "required": True,
                "content": {
                    http.JSON: {"schema": body, "example": {"records": [example_record(case)]}},
                },
            },
            "responses": {
                "200": {
                    "description": "One prediction a record",
                    "content": {http.JSON: {"schema": answer}},
                }
            }
            | {
                str(status): {
                    "description": why,
                    "content": {"application/problem+json": {"schema": problem}},
                }
                for status, why in _PROBLEMS.items()
            },
        }
    }


_TEXT = {"type": "string"}
_DAY = "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|"
_DAY += "02-(?:0[1-9]|1[0-9]|2[0-8]))"
_MOMENT = f"^[1-9][0-9]{{3}}-{_DAY}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]$"


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _value(column: Column) -> dict[str, Any]:
    kind = "number" if column.kind == "number" else "string"
    schema: dict[str, Any] = {
        "type": [kind, "null"] if column.nullable else kind,
        "description": f"{column.meaning}: {describe(column)}",
    }
    if column.kind == "category":
        schema["enum"] = [*column.categories, *([None] if column.nullable else [])]
    if column.kind == "timestamp":
        # the format date-time would want a time zone
        schema |= {"pattern": _MOMENT, "maxLength": 19}
    low, high = limits(column) if kind == "number" else (None, None)
    bounds = {"minimum": low, "maximum": high, "x-unit": column.unit or None}
    return schema | {key: value for key, value in bounds.items() if value is not None}


def _prediction(case: Case) -> dict[str, Any]:
    number = {"type": "number"}
    shares = {
        "type": "object",
        "additionalProperties": number,
        "description": "By field; with base they add up to value",
    }
    reasons = _object({"of": _TEXT, "base": number, "value": number, "contributions": shares})
    if not case.classes:
        schema = _object(
            {"id": _TEXT, "prediction": number | {"x-unit": case.target.unit}, "unit": _TEXT}
        )
        schema["properties"]["reasons"] = reasons
        return schema
    # float32 may round a little above
    share = {"type": "number", "minimum": 0, "maximum": 1.000001}
    probabilities = _object(dict.fromkeys(case.classes, share))
    schema = _object(
        {
            "id": _TEXT,
            "class": {"type": "string", "enum": list(case.classes)},
            "probabilities": probabilities,
        }
    )
    schema["properties"]["reasons"] = reasons
    if case.costs and case.costs.decisions:
        schema["properties"]["action"] = {
            "type": "string",
            "enum": list(case.costs.decisions.values()),
        }
    if case.bands:
        schema["properties"]["band"] = {"type": "string", "enum": list(case.bands.names)}
    return schema
