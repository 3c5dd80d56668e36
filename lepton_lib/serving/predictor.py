"""The model that answers, its log, and the release that may take its place.

Knows request bodies, cases and releases; what is wrong with a request it says as a problem.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from lepton_lib.cases import encode_records
from lepton_lib.errors import DataError, LeptonError, RecordError, RunError
from lepton_lib.serving import releases
from lepton_lib.serving.codec import RECORD_LIMIT, Answer
from lepton_lib.serving.log import (
    Entry,
    PredictionLog,
    batch_entry,
    make_entry,
    single_entry,
    to_text,
)
from lepton_lib.serving.microbatching import MicroBatcher
from lepton_lib.serving.middleware import store_or_refuse
from lepton_lib.serving.problems import ProblemError, data_problem
from lepton_lib.serving.scoring import Scorer
from lepton_lib.serving.telemetry import Metrics, log_error, log_event

EXPLAIN_LIMIT = 64  # records whose reasons one request may ask for
_FORM = '{"records": [{...}, ...]}'
Scored = tuple[list[Answer], np.ndarray]  # answers, and the outputs that they come from


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    records: list[dict[str, Any]]


_decode = msgspec.json.Decoder(_Body).decode


class Predictor:
    """Answers request bodies with the current release of a run, and stores each answer first.

    Attributes:
        scorer: The model that answers now.
        refused: The release that should have answered and could not be verified: ``version`` and
            ``why``; else None.
    """

    def __init__(
        self,
        run_dir: str | Path,
        scorer: Scorer,
        log: PredictionLog,
        *,
        trust: Sequence[str] | None = None,
    ) -> None:
        self.scorer = scorer
        self.log = log
        self.run_dir = Path(run_dir)
        self.metrics = Metrics()
        self.refused: dict[str, str] | None = None
        self._trust = trust
        self._pointed = self._pointer_state()
        self._adopt(scorer)

    def _adopt(self, scorer: Scorer) -> None:
        self.metrics.set_model(self.scorer.case.name, self.scorer.version, answers=False)
        self.scorer = scorer
        # One record at fault must not fail the others of its batch.
        self._score = MicroBatcher(partial(_answer_each, scorer), apart=(ValueError, RunError))
        self.metrics.set_model(scorer.case.name, scorer.version, answers=True)

    async def predict(self, body: bytes, request_id: str, *, explain: bool) -> bytes:
        """Answer a request's body, once the answer is stored.

        Raises:
            ProblemError: 400 or 422 for a body that is refused, 503 where the log can't be written.
        """
        scorer, version = self.scorer, self.scorer.version
        try:
            records, answers, outputs = await self._answer(body)
        except DataError as error:
            raise data_problem(error) from error
        if explain:
            entry = await _explain(scorer, body, answers, request_id)
        elif len(records) == 1:
            entry = single_entry(request_id, version, to_text(records[0]), to_text(answers[0]))
        else:
            stored = (body, outputs.astype("<f4").tobytes())
            entry = batch_entry(request_id, version, len(answers), scorer.codec.form, *stored)
        for answer, id_ in zip(answers, entry.ids, strict=True):
            answer.id = id_
        await store_or_refuse(self.log, entry, request_id)
        decisions = collections.Counter(answer.class_ or "number" for answer in answers)
        self.metrics.count_predictions(decisions)
        content = {"request_id": request_id, "model_version": version}
        return msgspec.json.encode(content | {"predictions": answers})

    async def _answer(self, body: bytes) -> tuple[Sequence[Any], list[Answer], np.ndarray]:
        scorer, reader = self.scorer, self.scorer.case.reader
        try:
            records: Sequence[Any] = scorer.codec.read(body)
            if len(records) == 1:
                return records, *await self._score(records[0])
            return records, *_answer(scorer, reader.rows(records))
        except (msgspec.MsgspecError, ValueError, RecursionError):  # slowly, to name what is wrong
            records = self._read_slowly(body)
            return records, *_answer(scorer, encode_records(scorer.case, records))

    def _read_slowly(self, body: bytes) -> list[dict[str, Any]]:
        try:
            records = _decode(body).records
        except msgspec.ValidationError as error:
            self._name_the_field(body)
            raise ProblemError(422, str(error), expected=_FORM) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._name_the_field(body)
            got = "bytes that are no JSON" if isinstance(error, UnicodeDecodeError) else str(error)
            raise ProblemError(400, got, expected=f"JSON in UTF-8: {_FORM}") from error
        if not 1 <= len(records) <= RECORD_LIMIT:
            raise _count_problem(len(records), f"1 to {RECORD_LIMIT}")
        return records

    def _name_the_field(self, body: bytes) -> None:
        """Name the field of a NaN or an infinity: no JSON, but Python's reader knows them."""
        with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError, DataError):
            try:
                encode_records(self.scorer.case, json.loads(body, parse_int=float)["records"])
            except RecordError as error:
                raise data_problem(error) from error

    async def refresh(self) -> None:
        """Take another release over once it is verified and loaded; requests go on meanwhile."""
        if (state := self._pointer_state()) == self._pointed:
            return
        self._pointed, version = state, ""
        try:
            version = releases.current_version(self.run_dir)
            if version != self.scorer.version:
                self._adopt(await asyncio.to_thread(self._load, version))
                log_event("release", version=version)
            self.refused = None
        except Exception as error:  # whatever is wrong with a new release, the old one goes on
            self.refuse(version, error)

    def refuse(self, version: str, error: Exception) -> None:
        """Note, and tell, that a release should answer and can't."""
        known = isinstance(error, LeptonError)
        why = str(error) if known else f"{type(error).__name__} while it was loaded"
        self.refused = {"version": version, "why": why.replace(f"{self.run_dir}/", "")}
        self.metrics.releases_refused.inc()
        log_error("release refused", answers=self.scorer.version, **self.refused)

    def check(self) -> None:
        """Find out whether an answer could be given and stored now.

        Raises:
            RunError: It could not.
        """
        self.scorer.check()
        self.log.check()

    def _pointer_state(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            state = os.stat(releases.pointer(self.run_dir))
            return state.st_mtime_ns, state.st_ino
        return None

    def _load(self, version: str) -> Scorer:
        scorer, case = Scorer(releases.folder_of(self.run_dir), trust=self._trust), self.scorer.case
        if (scorer.case.name, scorer.version) != (case.name, version):
            raise RunError(
                f"release {version}",
                f"version {scorer.version} of case {scorer.case.name!r}",
                f"{version} of {case.name!r}",
                "Promote another release.",
            )
        return scorer


async def _explain(scorer: Scorer, body: bytes, answers: list[Answer], request_id: str) -> Entry:
    """Add reasons to the answers; what is to be stored then."""
    if len(answers) > EXPLAIN_LIMIT:
        raise _count_problem(len(answers), f"at most {EXPLAIN_LIMIT} where reasons are asked for")
    records = json.loads(body)["records"]
    reasons = await asyncio.to_thread(scorer.explain, records)
    for answer, reason in zip(answers, reasons, strict=True):
        answer.reasons = reason
    return make_entry(request_id, scorer.version, records, msgspec.to_builtins(answers))


def _count_problem(count: int, expected: str) -> ProblemError:
    detail = f"got {count} records, expected {expected}"
    return ProblemError(422, detail, field="records", got=count, expected=expected)


def _answer(scorer: Scorer, inputs: np.ndarray) -> Scored:
    outputs = scorer.answer(inputs)
    return scorer.codec.answers.of(outputs), outputs


def _answer_each(scorer: Scorer, records: list[Any]) -> list[Scored]:
    """Records of several requests, in one run of the model; each request's answers for itself."""
    answers, outputs = _answer(scorer, scorer.case.reader.rows(records))
    return [([answer], outputs[place : place + 1]) for place, answer in enumerate(answers)]
