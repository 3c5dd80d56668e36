"""Request bodies read and answers written, as JSON. Knows cases and arrays, no models or HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import numpy as np

from lepton_lib import decisions
from lepton_lib.cases import Case
from lepton_lib.errors import RunError

RECORD_LIMIT = 4096  # in one request, so that no request holds the others up


class _Bands(msgspec.Struct, array_like=True):
    names: list[str]
    limits: list[float]


class Legend(msgspec.Struct):
    """What the numbers of an answer mean; it is stored with each batch."""

    kind: str  # how the batch's inputs are stored
    classes: list[str]  # none for regression
    actions: list[str | None]  # what each class leads to, where the case says it
    bands: _Bands | None
    unit: str  # the target's
    margin: float | None = None  # of a predicted number's 90 % interval, to either side


class Codec:
    """How a case's records are read from JSON, and what its answers hold.

    Attributes:
        answers: Makes answers of the model's outputs.
        form: What a batch is stored with, so that `expand` can read it.
    """

    def __init__(self, case: Case, margin: float | None = None) -> None:
        actions = case.costs.decisions if case.costs else {}
        bands = _Bands(list(case.bands.names), list(case.bands.limits)) if case.bands else None
        classes, unit = list(case.classes), case.target.unit
        named = [actions.get(name) for name in classes]
        legend = Legend("json", classes, named, bands, unit, margin)
        self.answers = Answers(legend)
        self.form = msgspec.json.encode(legend).decode()
        kind: Any = case.reader.records
        counted = Annotated[kind, msgspec.Meta(min_length=1, max_length=RECORD_LIMIT)]
        body: Any = msgspec.defstruct("Body", [("records", counted)], forbid_unknown_fields=True)
        self._decode = msgspec.json.Decoder(body).decode

    def read(self, body: bytes) -> Sequence[msgspec.Struct]:
        """The records of ``{"records": [{...}, ...]}``; MsgspecError where they are refused."""
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
    interval: tuple[float, float] | None = None  # holds 90 % of targets
    unit: str | None = None
    reasons: Any = None


class Answers:
    """Answers as JSON has them, made of rows of numbers."""

    def __init__(self, legend: Legend) -> None:
        self._legend = legend
        # Fields of another name, because a class may have any.
        names = {f"f{place}": name for place, name in enumerate(legend.classes)}
        shares: list[Any] = [(field, float) for field in names]
        try:
            self._shares: Any = msgspec.defstruct("Shares", shares, rename=names, gc=False)
        except ValueError:
            # msgspec writes a struct's names unescaped, so it refuses quotes and backslashes.
            self._shares = lambda *shares: dict(zip(legend.classes, shares, strict=True))
        self.width = len(legend.classes) + 1 if legend.classes else 1

    def of(self, outputs: np.ndarray) -> list[Answer]:
        """An answer a row.

        Args:
            outputs: ``(n, width)``: probabilities by class and the decision's index, or the
                prediction.
        """
        legend, columns = self._legend, outputs.astype(np.float64).T.tolist()
        if not legend.classes:
            answers = [Answer(prediction=value, unit=legend.unit) for value in columns[0]]
            if (margin := legend.margin) is not None:
                for answer, value in zip(answers, columns[0], strict=True):
                    answer.interval = (value - margin, value + margin)
            return answers
        bands: list[str | None] = [None] * len(outputs)
        if legend.bands:
            bands = decisions.band(columns[1], legend.bands).tolist()  # type: ignore[arg-type]
        chosen = outputs[:, -1].astype(int).tolist()
        parts = zip(chosen, map(self._shares, *columns[:-1]), bands, strict=True)
        return [
            Answer(None, legend.classes[index], share, legend.actions[index], band)
            for index, share, band in parts
        ]

    def plain(self, outputs: np.ndarray) -> list[dict[str, Any]]:
        """The same as dictionaries."""
        return [msgspec.to_builtins(answer) for answer in self.of(outputs)]


@lru_cache(16)
def _read_legend(text: str) -> tuple[str, Answers]:
    legend = msgspec.json.decode(text, type=Legend)
    return legend.kind, Answers(legend)


def expand(
    form: str, inputs: bytes | str, answers: bytes | str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A stored batch's records and answers, one by one.

    By ``form`` both are lists (``json``), or the answers are outputs as little-endian float32 (a
    legend). Records of an older version are a request's body.

    Raises:
        RunError: The batch is of an older version.
    """
    if form == "json":
        return msgspec.json.decode(inputs), msgspec.json.decode(answers)
    kind, reader = _read_legend(form)
    if kind != "json":
        remedy = "Read it with the version of lepton_lib that wrote it."
        raise RunError("prediction log", f"a batch of {kind} rows", "JSON", remedy)
    outputs = np.frombuffer(answers, dtype="<f4")  # type: ignore[arg-type]  # bytes by form
    records = msgspec.json.decode(inputs)
    records = records["records"] if isinstance(records, dict) else records
    return records, reader.plain(outputs.reshape(-1, reader.width))
