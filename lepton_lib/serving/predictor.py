"""The model that answers, its log, and the release that may take its place.

Knows request bodies, cases and releases; what is wrong with a request it says as a problem.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from lepton_lib.cases import Case, encode_records
from lepton_lib.errors import DataError, LeptonError, RecordError, RunError
from lepton_lib.serving import releases
from lepton_lib.serving.codec import RECORD_LIMIT, Answer
from lepton_lib.serving.log import PredictionLog, make_entry
from lepton_lib.serving.microbatching import MicroBatcher
from lepton_lib.serving.middleware import store_or_refuse
from lepton_lib.serving.problems import RETRY, ProblemError, data_problem
from lepton_lib.serving.scoring import Scorer
from lepton_lib.serving.telemetry import Metrics, log_error, log_event

EXPLAIN_LIMIT = 64  # records whose reasons one request may ask for
EXPLAIN_WAITING = 16  # requests that may wait for reasons at once
LARGE_BODY = 64 << 10  # bytes; a longer one is answered beside the event loop
FAULTS = (msgspec.MsgspecError, ValueError, RecursionError)  # of a body that is read quickly
_FORM = '{"records": [{...}, ...]}'
Scored = tuple[list[Answer], np.ndarray]  # answers, and the outputs that they come from
Batch = tuple[Sequence[Any], list[Answer], np.ndarray]  # records, and the same


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
        self._large, self._reasons = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._explaining = 0  # requests that wait for reasons
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
            ProblemError: 400 or 422 for a body that is refused, 503 where the log can't be written
                or too many wait for reasons.
        """
        scorer = self.scorer
        try:
            records, answers, outputs = await self._answer(scorer, body)
        except DataError as error:
            raise data_problem(error) from error
        stored: dict[str, Any] = {}
        if explain:
            await self._explain(scorer, records, answers)
        else:
            stored = {"form": scorer.codec.form, "outputs": outputs.astype("<f4").tobytes()}
        entry = make_entry(request_id, scorer.version, records, answers, **stored)
        for answer, id_ in zip(answers, entry.ids, strict=True):
            answer.id = id_
        await store_or_refuse(self.log, entry, request_id)
        decisions = collections.Counter(answer.class_ or "number" for answer in answers)
        self.metrics.count_predictions(decisions)
        content = {"request_id": request_id, "model_version": scorer.version}
        return msgspec.json.encode(content | {"predictions": answers})

    async def _answer(self, scorer: Scorer, body: bytes) -> Batch:
        if len(body) > LARGE_BODY:  # beside the event loop, one at a time
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._large, _answer_rows, scorer, body)
        records: Sequence[Any] | None = None
        with contextlib.suppress(*FAULTS):
            records = scorer.codec.read(body)
            if len(records) == 1:
                return records, *await self._score(records[0])
        return _answer_rows(scorer, body, records)

    async def _explain(self, scorer: Scorer, records: Any, answers: list[Answer]) -> None:
        """Add reasons to answers, one request at a time; what is cancelled stops computing."""
        if len(answers) > EXPLAIN_LIMIT:
            expected = f"at most {EXPLAIN_LIMIT} where reasons are asked for"
            raise _count_problem(len(answers), expected)
        if self._explaining >= EXPLAIN_WAITING:
            raise ProblemError(503, "Too many requests for reasons at once.", headers=RETRY)
        cancelled = threading.Event()
        self._explaining += 1
        try:
            job = self._reasons.submit(scorer.explain, msgspec.to_builtins(records), cancelled)
            reasons = await asyncio.wrap_future(job)
            for answer, reason in zip(answers, reasons, strict=True):
                answer.reasons = reason
        finally:
            cancelled.set()
            self._explaining -= 1

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


def _answer_rows(scorer: Scorer, body: bytes, records: Sequence[Any] | None = None) -> Batch:
    try:
        records = records or scorer.codec.read(body)
        return records, *_answer(scorer, scorer.case.reader.rows(records))
    except FAULTS:  # slowly, to name what is wrong
        records = _read_slowly(scorer.case, body)
        return records, *_answer(scorer, encode_records(scorer.case, records))


def _read_slowly(case: Case, body: bytes) -> list[dict[str, Any]]:
    try:
        records = _decode(body).records
    except msgspec.ValidationError as error:
        _name_the_field(case, body)
        raise ProblemError(422, str(error), expected=_FORM) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _name_the_field(case, body)
        got = "bytes that are no JSON" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ProblemError(400, got, expected=f"JSON in UTF-8: {_FORM}") from error
    if not 1 <= len(records) <= RECORD_LIMIT:
        raise _count_problem(len(records), f"1 to {RECORD_LIMIT}")
    return records


def _name_the_field(case: Case, body: bytes) -> None:
    """Name the field of a NaN or an infinity: no JSON, but Python's reader knows them."""
    with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError, DataError):
        try:
            encode_records(case, json.loads(body, parse_int=float)["records"])
        except RecordError as error:
            raise data_problem(error) from error


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
