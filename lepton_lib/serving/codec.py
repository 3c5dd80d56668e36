"""Request bodies read and answers written, as JSON. Knows cases and arrays, no models or HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import numpy as np

from lepton_lib.cases import Case
from lepton_lib.errors import RunError

RECORD_LIMIT = 4096  # in one request, so that no request holds the others up


class Codec:
    """How a case's records are read from JSON, and what its answers hold."""

    def __init__(self, case: Case) -> None:
        self.case = case
        costs, bands = case.costs, case.bands
        self.legend: dict[str, Any] = {  # what a stored batch needs to be read again
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

    def read(self, body: bytes) -> Sequence[msgspec.Struct]:
        """The records of ``{"records": [{...}, ...]}``, as the case's reader takes them.

        Raises:
            MsgspecError, ValueError, RecursionError: Something is wrong; a slower look says what.
        """
        records: Sequence[msgspec.Struct] = self._decode(body).records
        return records


class Answer(msgspec.Struct, omit_defaults=True, rename={"class_": "class"}):
    """The answer to one record; what its case doesn't have is left out."""

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
        legend: Classes, actions, bands and unit, as `Codec` has them and as a stored batch brings
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
        except ValueError:
            # msgspec writes a struct's names unescaped, so it refuses quotes and backslashes.
            self._shares = lambda *shares: dict(zip(self._classes, shares, strict=True))
        self.width = len(self._classes) + 1 if self._classes else 1

    def of(self, outputs: np.ndarray, ids: Sequence[str] | None = None) -> list[Answer]:
        """An answer a row, with its id where ids are given.

        Args:
            outputs: ``(n, width)``: probabilities by class and the decision's index, or the
                prediction.
            ids: The predictions'.
        """
        columns = outputs.astype(np.float64).T.tolist()
        names = ids if ids is not None else [None] * len(outputs)
        if not self._classes:
            return [
                Answer(id_, prediction=value, unit=self._unit)
                for id_, value in zip(names, columns[0], strict=True)
            ]
        decisions = outputs[:, -1].astype(int).tolist()
        bands: list[str | None] = [None] * len(outputs)
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

    def plain(self, outputs: np.ndarray) -> list[dict[str, Any]]:
        """The same as dictionaries, without ids."""
        return [msgspec.to_builtins(answer) for answer in self.of(outputs)]


@lru_cache(16)
def _read_legend(form: str) -> tuple[dict[str, Any], Answers]:
    legend = json.loads(form)
    return legend, Answers(legend)


def expand(
    form: str, inputs: bytes | str, answers: bytes | str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A stored batch's records and answers, one by one.

    ``form`` is ``json`` where both are JSON lists, or the legend that the outputs are read with.

    Raises:
        RunError: The batch is of an older version.
    """
    if form == "json":
        return json.loads(inputs), json.loads(answers)
    legend, reader = _read_legend(form)
    if legend["kind"] != "json":
        raise RunError(
            "prediction log",
            f"a batch of {legend['kind']} rows",
            "JSON",
            "Read it with the version of lepton_lib that wrote it.",
        )
    outputs = np.frombuffer(answers, dtype="<f4")  # type: ignore[arg-type]  # bytes by form
    return json.loads(inputs)["records"], reader.plain(outputs.reshape(-1, reader.width))
