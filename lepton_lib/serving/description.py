"""The OpenAPI description of a prediction service, made from a case. Knows cases only."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from lepton_lib.cases import Case
from lepton_lib.cases.records import example_record
from lepton_lib.serving.codec import RECORD_LIMIT
from lepton_lib.utils import render

_NUMBER, _TEXT = {"type": "number"}, {"type": "string"}


def describe_service(case: Case, version: str) -> dict[str, Any]:
    """The service's description (OpenAPI 3.1)."""
    text = render(
        "serving/templates/openapi.json",
        case=case,
        version=version,
        fields={column.name: column.json_schema() for column in case.inputs},
        required=[column.name for column in case.inputs if not column.nullable],
        example=example_record(case),
        prediction=_prediction(case),
        record_limit=RECORD_LIMIT,
    )
    description: dict[str, Any] = json.loads(text)
    return description


def _prediction(case: Case) -> dict[str, Any]:
    """The schema of one record's answer."""
    if case.classes:
        share = {"type": "number", "minimum": 0, "maximum": 1.000001}  # float32 may round up
        probabilities = _object(dict.fromkeys(case.classes, share))
        schema = _object(
            {"id": _TEXT, "class": _enum(case.classes), "probabilities": probabilities}
        )
    else:
        number = _NUMBER | {"x-unit": case.target.unit}
        schema = _object({"id": _TEXT, "prediction": number, "unit": _TEXT})
    shares = {"type": "object", "additionalProperties": _NUMBER}
    shares["description"] = "By field; with base they add up to value"
    reasons = {"of": _TEXT, "base": _NUMBER, "value": _NUMBER, "contributions": shares}
    optional = {"reasons": _object(reasons)}
    if case.costs and case.costs.decisions:
        optional["action"] = _enum(case.costs.decisions.values())
    if case.bands:
        optional["band"] = _enum(case.bands.names)
    schema["properties"] |= optional
    return schema


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _enum(names: Iterable[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(names)}
