"""Bodies of requests read and answers written, as JSON. Knows cases and arrays, nothing of models or HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import numpy as np

from lepton_lib.cases import Case
from lepton_lib.errors import RunError

RECORD_LIMIT = 4096  # in one request, so that no request keeps the others waiting for long


class Rules:
    """How a case's records are read from JSON, and what its answers hold."""

    def __init__(self, case: Case) -> None:
        self.case = case
        costs, bands = case.costs, case.bands
        self.legend: dict[str, Any] = {  # what a kept batch needs to be read again
            "kind": "json",
            "classes": list(case.classes),
            "actions": [costs.decisions.get(name) if costs else None for name in case.classes],
            "bands": [list(bands.names), list(bands.limits)] if bands else None,
            "unit": case.target.unit,
        }
        self.answers = Answers(self.legend)
        kind: Any = case.reader.records
        counted = Annotated[kind, msgspec.Meta(min_length=1, max_length=RECORD_LIMIT)]
        body: Any = msgspec.defstruct("Body", [("records", counted)], forbid_unknown_fields=True)
        self._decode = msgspec.json.Decoder(body).decode

    def read_json(self, body: bytes) -> Sequence[msgspec.Struct]:
        """The records of ``{"records": [{...}, ...]}``, as the case's reader takes them.

        Raises:
            MsgspecError, ValueError, RecursionError: Something is wrong; who wants to know what
                looks again, slowly.
        """
        records: Sequence[msgspec.Struct] = self._decode(body).records
        return records


class Answer(msgspec.Struct, omit_defaults=True, rename={"class_": "class"}):
    """What is told of one record; what its case doesn't have is left out."""

    id: str | None = None
    class_: str | None = None
    probabilities: Any = None
    action: str | None = None
    band: str | None = None
    prediction: float | None = None
    unit: str | None = None
    reasons: Any = None


class Answers:
    """Answers as JSON has them, made of rows of numbers.

    Args:
        legend: Classes, actions, bands and unit, as `Rules` has them and as a kept batch brings
            them.
    """

    def __init__(self, legend: Mapping[str, Any]) -> None:
        self._unit, self._classes = legend["unit"], legend["classes"]
        self._actions, self._bands = legend["actions"], legend["bands"]
        # a class may have any name
        names = {f"f{place}": name for place, name in enumerate(self._classes)}
        shares: list[Any] = [(field, float) for field in names]
        try:
            self._shares: Any = msgspec.defstruct("Shares", shares, rename=names, gc=False)
        except (
            ValueError
        ):  # msgspec writes a struct's names unescaped, and refuses a quote or a backslash in them
            self._shares = lambda *given: dict(zip(self._classes, given, strict=True))
        self.width = len(self._classes) + 1 if self._classes else 1

    def of(self, told: np.ndarray, ids: Sequence[str] | None = None) -> list[Answer]:
        """An answer a row, with its id where ids are given.

        Args:
            told: ``(n, width)``: probabilities by class and the decision's index, or the
                prediction.
            ids: The predictions'.
        """
        columns = told.astype(np.float64).T.tolist()
        names = ids if ids is not None else [None] * len(told)
        if not self._classes:
            given = zip(names, columns[0], strict=True)
            return [Answer(id_, prediction=value, unit=self._unit) for id_, value in given]
        decisions = told[:, -1].astype(int).tolist()
        bands: list[str | None] = [None] * len(told)
        if self._bands:
            labels, bounds = self._bands
            bands = [
                labels[place]
                for place in np.searchsorted(bounds, columns[1], side="right").tolist()
            ]
        classes, actions = self._classes, self._actions
        parts = zip(names, decisions, map(self._shares, *columns[:-1]), bands, strict=True)
        return [
            Answer(id_, classes[index], share, actions[index], band)
            for id_, index, share, band in parts
        ]

    def plain(self, told: np.ndarray) -> list[dict[str, Any]]:
        """The same as dictionaries, without ids."""
        return [msgspec.to_builtins(answer) for answer in self.of(told)]


@lru_cache(16)
def _reading(form: str) -> tuple[dict[str, Any], Answers]:
    legend = json.loads(form)
    return legend, Answers(legend)


def expand(
    form: str, inputs: bytes | str, answers: bytes | str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A kept batch's records and answers, one by one: ``form`` is ``json``, or a JSON object with the legend."""
    if form == "json":
        return json.loads(inputs), json.loads(answers)
    legend, told = _reading(form)
    given = told.plain(np.frombuffer(answers, dtype="<f4").reshape(-1, told.width))  # type: ignore[arg-type]  # bytes by form
    if legend["kind"] != "json":
        raise RunError(
            "prediction log",
            f"a batch of {legend['kind']} rows",
            "JSON",
            "Read it with the version of lepton_lib that wrote it.",
        )
    return json.loads(inputs)["records"], given
