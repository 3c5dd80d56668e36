"""The service as an ASGI application. Knows HTTP and the scorer; what it answers is kept in the log first.

`POST /v1/predict` is handled without a framework, for speed; everything else, and the description,
by FastAPI. No line of its own log holds anything that a client sent, but for a well-formed request
id.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import logging
import os
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec
import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lepton_lib.cases import encode_records
from lepton_lib.errors import DataError, LeptonError, RecordError, RunError
from lepton_lib.serving import problems as http
from lepton_lib.serving import releases
from lepton_lib.serving.api_keys import Keys, keys_file
from lepton_lib.serving.batches import RECORD_LIMIT, Answer
from lepton_lib.serving.log import Entry, PredictionLog, batch_entry, entry, single_entry
from lepton_lib.serving.microbatching import MicroBatcher
from lepton_lib.serving.pages import GUARDED, PREDICT, ROUTES, make_pages
from lepton_lib.serving.problems import Message, ProblemError, Receive, Send
from lepton_lib.serving.scoring import Scorer

EXPLAIN_LIMIT = 64  # records whose reasons one request may ask for
IN_FLIGHT = 256  # requests that are worked on at once, in one worker
WATCH_SECONDS = 0.25  # between two looks at the files that name the release and the keys
_logger = logging.getLogger("lepton.serving")


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    records: list[dict[str, Any]]


_decode = msgspec.json.Decoder(_Body).decode


def create_app(
    run_dir: str | Path,
    *,
    trust: Sequence[str] | None = None,
    require_key: bool = False,
    workers: int = 1,
) -> PredictionApp:
    """The service of a run folder: its current release is verified and loaded, its prediction log opened.

    Args:
        run_dir: The run folder.
        trust: Public keys whose signature counts; without it, the user's own alone.
        require_key: Demand an API key, also where the run has none yet.
        workers: How many processes share the log and the keys' rates.

    Raises:
        RunError: A file is missing, changed or signed by a stranger, or the log can't be written
            to.
        CaseError: The case isn't there.
    """
    scorer = Scorer(releases.folder_of(run_dir), trust=trust)
    keys = Keys(keys_file(run_dir), required=require_key, share=1 / workers)
    log = PredictionLog(
        Path(run_dir) / "service" / "predictions.sqlite", timeout=0.2 if workers == 1 else 2.0
    )
    return PredictionApp(scorer, log, keys=keys, run_dir=run_dir, trust=trust)


class PredictionApp:
    """The ASGI application. Made by `create_app`.

    Attributes:
        scorer: What answers.
        log: Where answers are kept.
        keys: Who may ask.
        run_dir: Where releases and the monitor's report lie.
        refused: The release that should have answered and could not be verified: ``version`` and
            ``why``; else None.
    """

    def __init__(
        self,
        scorer: Scorer,
        log: PredictionLog,
        *,
        keys: Keys | None = None,
        run_dir: str | Path = "",
        trust: Sequence[str] | None = None,
    ) -> None:
        self.scorer = scorer
        self.log = log
        self.keys = keys
        self.refused: dict[str, str] | None = None
        self.run_dir = run_dir
        self._trust = trust
        self._in_flight = 0
        self._pointed = self._state()
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "lepton_requests", "Requests", ["route", "status"], registry=registry
        )
        # to look a label up anew each time takes long
        self._requested = lru_cache(256)(self._requests.labels)
        self._seconds = Histogram(
            "lepton_request_seconds", "Time to answer", ["route"], registry=registry
        )
        self._predictions = Counter(
            "lepton_predictions", "Predictions kept", ["decision"], registry=registry
        )
        self._timed, self._kept = (
            lru_cache(256)(self._seconds.labels),
            lru_cache(256)(self._predictions.labels),
        )
        self._refusals = Counter(
            "lepton_releases_refused", "Releases that could not be verified", registry=registry
        )
        self._info = Gauge(
            "lepton_model",
            "The model that answers",
            ["case", "version"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._adopt(scorer)

    def _adopt(self, scorer: Scorer, pages: Any = None) -> None:
        self._info.labels(self.scorer.case.name, self.scorer.version).set(0)
        self.scorer, self._pages = scorer, pages or make_pages(self, scorer)
        self._score = MicroBatcher(partial(_answer_each, scorer), apart=(ValueError, RunError))
        self._info.labels(scorer.case.name, scorer.version).set(1)

    def _state(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            state = os.stat(releases.pointer(self.run_dir))
            return state.st_mtime_ns, state.st_ino
        return None

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look after release, keys and log while the service lives; then close the log."""
        watcher = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watcher.cancel()
            self.log.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await self.refresh()
            try:
                # a commit would make all requests wait for the disk
                await asyncio.to_thread(self.log.checkpoint)
            except RunError as error:
                _logger.error(_line("not carried into the file", error=str(error)))

    async def refresh(self) -> None:
        """Take changed keys over, and another release once it is verified and loaded; requests go on meanwhile."""
        try:
            if self.keys is not None:
                self.keys.refresh()
        except RunError as error:
            _logger.error(_line("keys not read", error=str(error)))
        if (state := self._state()) == self._pointed:
            return
        self._pointed, version = state, ""
        try:
            version = releases.current_version(self.run_dir)
            if version != self.scorer.version:
                scorer, pages = await asyncio.to_thread(self._load, version)
                self._adopt(scorer, pages)
                _logger.info(_line("release", version=version))
            self.refused = None
        except Exception as error:  # whatever is wrong with a new release, the old one goes on
            why = (
                str(error)
                if isinstance(error, LeptonError)
                else f"{type(error).__name__} while it was loaded"
            )
            self.refused = {"version": version, "why": why.replace(f"{self.run_dir}/", "")}
            self._refusals.inc()
            _logger.error(_line("release refused", **self.refused))

    def _load(self, version: str) -> tuple[Scorer, Any]:
        scorer = Scorer(releases.folder_of(self.run_dir), trust=self._trust)
        if (scorer.case.name, scorer.version) != (self.scorer.case.name, version):
            raise RunError(
                f"release {version}",
                f"version {scorer.version} of case {scorer.case.name!r}",
                f"{version} of {self.scorer.case.name!r}",
                "Promote another release.",
            )
        scorer.probabilities(scorer.background[:1])  # the first answer is the slowest
        return scorer, make_pages(self, scorer)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; what goes wrong becomes a problem, and is counted."""
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        headers = dict(scope["headers"])
        wanted = headers.get(b"x-request-id", b"")
        request_id = wanted.decode() if http.REQUEST_ID.fullmatch(wanted) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [*http.HEADERS, (b"x-request-id", request_id.encode())]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        more = True  # of the body, that the client is still sending

        async def read() -> Message:
            nonlocal more
            message = await receive()
            more = message.get("more_body", False)
            return message

        self._in_flight += 1
        try:
            self._admit(scope["path"], headers)
            if scope["path"] == PREDICT:
                await self._answer_predict(scope, headers, read, send_with_headers, request_id)
            else:
                await self._pages(scope, read, send_with_headers)
        except ProblemError as problem:
            await http.respond(send_with_headers, *problem.render(request_id), more_body=True)
            await http.drain(read, send_with_headers, more=more)
        except Exception as error:  # the last line of defence: whatever it is, the client gets an answer without it
            # its message may hold what the client sent
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            _logger.error(
                _line("failed", request_id=request_id, error=type(error).__name__, where=where)
            )
            if not status:
                failure = ProblemError(500, "The service failed; its log names this request's id.")
                await http.respond(send_with_headers, *failure.render(request_id))
        finally:
            self._in_flight -= 1
            route, seconds = (
                scope["path"] if scope["path"] in ROUTES else "other",
                time.perf_counter() - begun,
            )
            self._requested(route, str(status)).inc()
            self._timed(route).observe(seconds)
            _logger.info(
                _line(
                    "request",
                    request_id=request_id,
                    route=route,
                    status=status,
                    ms=round(seconds * 1e3, 3),
                )
            )

    def _admit(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self.keys is not None and path in GUARDED:
            self.keys.admit(headers)
        if self._in_flight > IN_FLIGHT:
            raise ProblemError(503, "Too many requests at once.", headers={"retry-after": "1"})

    async def _answer_predict(
        self,
        scope: Message,
        headers: dict[bytes, bytes],
        read: Receive,
        send: Send,
        request_id: str,
    ) -> None:
        http.check_head(scope["method"], headers)
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        explain = _flag(query)
        if (body := await http.read_body(read)) is None:
            return  # the client has gone
        try:
            made, content, told = await self._predict(body, request_id, explain=explain)
        except RecordError as error:
            raise http.field_problem(error) from error
        except DataError as error:
            raise ProblemError(
                422, str(error), field=error.where, expected=error.expected
            ) from error
        try:
            await self.log.keep(made)
        except RunError as error:
            _logger.error(_line("not kept", request_id=request_id, error=str(error)))
            detail = "The answer could not be kept, and is not given."
            raise ProblemError(503, detail, headers={"retry-after": "1"}) from error
        self._count(told)
        await http.respond(send, 200, {"content-type": http.JSON}, content)

    def _count(self, told: np.ndarray) -> None:
        classes = self.scorer.case.classes
        for place, count in collections.Counter(
            told[:, -1].tolist() if classes else [0] * len(told)
        ).items():
            self._kept(classes[int(place)] if classes else "number").inc(count)

    async def _predict(
        self, body: bytes, request_id: str, *, explain: bool
    ) -> tuple[Entry, bytes, np.ndarray]:
        scorer, rules, score = self.scorer, self.scorer.rules, self._score
        read: Sequence[Any] = ()
        try:
            read = rules.read_json(body)
            answers, told = (
                await score(read[0])
                if len(read) == 1
                else _answer(scorer, scorer.case.reader.rows(read))
            )
        except (msgspec.MsgspecError, ValueError, RecursionError):  # slowly, to name what is wrong
            read = self._records(body)
            answers, told = _answer(scorer, encode_records(scorer.case, read))
        if explain and len(read) > EXPLAIN_LIMIT:
            expected = f"at most {EXPLAIN_LIMIT} where reasons are asked for"
            raise ProblemError(
                422,
                f"got {len(read)} records, expected {expected}",
                field="records",
                expected=expected,
            )
        if explain:
            records = json.loads(body)["records"]
            for answer, reasons in zip(
                answers, await asyncio.to_thread(scorer.explain, records), strict=True
            ):
                answer.reasons = reasons
            made = entry(request_id, scorer.version, records, msgspec.to_builtins(answers))
        elif len(read) == 1:
            record, told_of_it = (
                msgspec.json.encode(read[0]).decode(),
                msgspec.json.encode(answers[0]).decode(),
            )
            made = single_entry(request_id, scorer.version, record=record, answer=told_of_it)
        else:
            made = self._batch(request_id, body, told)
        for answer, id_ in zip(answers, made.ids, strict=True):
            answer.id = id_
        content = {
            "request_id": request_id,
            "model_version": scorer.version,
            "predictions": answers,
        }
        return made, msgspec.json.encode(content), told

    def _batch(self, request_id: str, body: bytes, told: np.ndarray) -> Entry:
        scorer = self.scorer
        form = scorer.rules.legend
        answers = told.astype("<f4").tobytes()
        return batch_entry(
            request_id, scorer.version, rows=len(told), form=form, inputs=body, answers=answers
        )

    def _records(self, body: bytes) -> list[dict[str, Any]]:
        try:
            records = _decode(body).records
        except msgspec.ValidationError as error:
            self._name_the_field(body)
            raise ProblemError(422, str(error), expected='{"records": [{...}, ...]}') from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._name_the_field(body)
            got = "bytes that are no JSON" if isinstance(error, UnicodeDecodeError) else str(error)
            raise ProblemError(
                400, got, expected='JSON in UTF-8: {"records": [{...}, ...]}'
            ) from error
        if not 1 <= len(records) <= RECORD_LIMIT:
            detail = f"got {len(records)} records, expected 1 to {RECORD_LIMIT}"
            raise ProblemError(
                422, detail, field="records", got=len(records), expected=f"1 to {RECORD_LIMIT}"
            )
        return records

    def _name_the_field(self, body: bytes) -> None:
        """JSON has no NaN and no infinity, but Python's reader knows them, so that their field can be named."""
        with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError, DataError):
            try:
                encode_records(self.scorer.case, json.loads(body, parse_int=float)["records"])
            except RecordError as error:
                raise http.field_problem(error) from error


def _answer(scorer: Scorer, inputs: np.ndarray) -> tuple[list[Answer], np.ndarray]:
    told = scorer.answer(inputs)
    return scorer.rules.answers.of(told), told


def _answer_each(scorer: Scorer, records: list[Any]) -> list[tuple[list[Answer], np.ndarray]]:
    """Records of several requests, in one run of the model; each request's answers for itself."""
    answers, told = _answer(scorer, scorer.case.reader.rows(records))
    return [([answer], told[place : place + 1]) for place, answer in enumerate(answers)]


def _flag(query: dict[str, list[str]]) -> bool:
    """``?explain=true``; nothing else may stand there."""
    if unknown := set(query) - {"explain"}:
        detail = f"got the parameter {sorted(unknown)[0][:80]!r}, expected 'explain'"
        raise ProblemError(422, detail, field="query", expected="explain")
    wanted = query.get("explain", ["false"])[-1]
    if wanted not in ("true", "false"):
        detail = f"got explain={wanted[:80]!r}, expected true or false"
        raise ProblemError(422, detail, field="explain", expected="true or false")
    return wanted == "true"


def _line(event: str, **values: Any) -> str:
    return json.dumps({"event": event, **values})
