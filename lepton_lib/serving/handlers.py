"""A service written as a class, as with Lepton's Photon: handlers are methods, their types checks.

``class Risk(Service): def init(self): ...; @handler def predict(self, income: float) -> float:
...``, then ``Risk().launch(port=8080)``. The description in /openapi.json comes from the
annotations, so that any client that reads one can call the handlers by name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar, get_type_hints, overload

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from pydantic import ConfigDict, create_model
from starlette.responses import FileResponse, HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lepton_lib.errors import ParameterError
from lepton_lib.serving.api_keys import Keys, keys_file
from lepton_lib.serving.log import PredictionLog, make_entry
from lepton_lib.serving.middleware import ServiceMiddleware, store_or_refuse
from lepton_lib.serving.problems import ProblemError
from lepton_lib.serving.routes import common_endpoints, static_file
from lepton_lib.serving.server import listen, require_keys, run
from lepton_lib.serving.telemetry import Metrics
from lepton_lib.utils import render

Method = TypeVar("Method", bound=Callable[..., Any])
_MARK = "_lepton_handler"
_PLAIN = inspect.Parameter.POSITIONAL_OR_KEYWORD
OPEN = {"/healthz", "/readyz", "/openapi.json", "/docs"}  # where no key is demanded


class _Mark(NamedTuple):
    """How a handler was marked."""

    path: str
    verb: str
    keep: tuple[str, ...] | None


@overload
def handler(path: Method) -> Method: ...
@overload
def handler(
    path: str | None = None, *, method: str = "POST", keep: Sequence[str] | None = None
) -> Callable[[Method], Method]: ...
def handler(path: Any = None, *, method: str = "POST", keep: Sequence[str] | None = None) -> Any:
    """Mark a method as a handler: ``@handler``, or ``@handler("/other", method="GET")``.

    Args:
        path: Where it answers; the method's name by default.
        method: ``POST``, whose arguments come as a JSON object, or ``GET``, whose arguments come in
            the query.
        keep: The arguments that are stored with the result; all by default, none for ``()``. Leave
            out what is about a person.
    """
    if callable(path):
        return handler()(path)
    if method not in ("POST", "GET"):
        raise ParameterError("handler's method", repr(method), "POST or GET", "Use one of them.")

    def mark(function: Method) -> Method:
        names = None if keep is None else tuple(keep)
        setattr(function, _MARK, _Mark(path or f"/{function.__name__}", method, names))
        return function

    return mark


class Service:
    """A service whose handlers are its methods: mark them with `handler`, and `launch` it.

    Attributes:
        version: What the prediction log says answered; the class's name unless a subclass sets it.
        pages: Files that anyone may read without a key, by path: a page, its script and style.
    """

    version: str = ""
    pages: Mapping[str, Path] = MappingProxyType({})

    def init(self) -> None:
        """Run once before the first request, to read a model for example. Nothing by default."""

    def app(self, folder: str | Path | None = None) -> ServiceMiddleware:
        """The service as an ASGI application; `init` runs when it starts.

        Args:
            folder: Where API keys are looked for and each call's arguments and result are stored:
                in ``folder/service/``, as in a run folder, so that ``lepton keys`` and ``lepton
                log`` work on it. Without it nothing is stored and no key is demanded.

        Raises:
            ParameterError: It has no handlers, or one takes an argument without a type.
            RunError: The folder can't be written to.
        """
        name, keys, log = type(self).__name__, None, None
        if folder is not None:
            place = Path(folder) / "service"
            place.mkdir(parents=True, exist_ok=True)
            keys = Keys(keys_file(folder))
            log = PredictionLog(place / "predictions.sqlite")
        metrics = Metrics()
        metrics.set_model(name, self.version or name, answers=True)
        api = self._api(_Recorder(self.version or name, metrics, log))
        for path, endpoint in common_endpoints(metrics, log.check if log else lambda: None).items():
            api.add_route(path, endpoint, include_in_schema=False)
        for path, file in self.pages.items():
            api.add_route(path, functools.partial(_send_file, file), include_in_schema=False)
        api.add_route("/docs", functools.partial(_send_docs, name), include_in_schema=False)
        api.add_route("/static/{name}", static_file, include_in_schema=False)
        open_ = OPEN | self.pages.keys()
        guarded = ServiceMiddleware(
            _raise_problems(api),
            metrics=metrics,
            routes={*open_, "/metrics", *api.openapi()["paths"]},
            guarded=lambda path: path not in open_ and not path.startswith("/static/"),
            keys=keys,
            log=log,
        )

        @contextlib.asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[None]:
            self.init()
            async with guarded.watching():
                yield

        api.router.lifespan_context = lifespan
        return guarded

    def _api(self, recorder: _Recorder) -> FastAPI:
        name = type(self).__name__
        methods = inspect.getmembers(self, lambda member: hasattr(member, _MARK))
        if not methods:
            remedy = "Mark a method with @handler."
            raise ParameterError(f"service {name}", "no handlers", "at least one", remedy)
        api = FastAPI(title=name, summary=inspect.getdoc(self), docs_url=None, redoc_url=None)
        for label, method in methods:
            mark = getattr(method, _MARK)
            api.add_api_route(
                mark.path,
                _endpoint(name, label, method, recorder),
                methods=[mark.verb],
                operation_id=label,
                summary=(inspect.getdoc(method) or label).splitlines()[0],
            )
        return api

    def launch(
        self,
        port: int = 8080,
        host: str = "127.0.0.1",
        *,
        folder: str | Path | None = None,
        no_keys: bool = False,
    ) -> None:
        """Serve until interrupted.

        Args:
            port: The port; 0 takes a free one, which the log names.
            host: The address to bind to; only this machine can reach the default.
            folder: Where keys are looked for and calls stored, see `app`.
            no_keys: Answer without a key, also on an address that others can reach.

        Raises:
            ParameterError: As for `app`.
            RunError: The address can't be bound, or others can reach it and there are no keys.
        """
        require_keys(host, folder, no_keys=no_keys)
        run(functools.partial(self.app, folder), listen(host, port))


@dataclasses.dataclass(frozen=True)
class _Recorder:
    """Calls handlers, counts the calls and stores them."""

    version: str
    metrics: Metrics
    log: PredictionLog | None

    async def call(
        self, name: str, method: Callable[..., Any], arguments: dict[str, Any], id_: str
    ) -> Any:
        """The result of a handler, once it is stored under the request's id."""
        if inspect.iscoroutinefunction(method):
            result = await method(**arguments)
        else:
            result = await run_in_threadpool(method, **arguments)
        if self.log is not None:
            whole = f"{result.media_type} response" if isinstance(result, Response) else result
            answer = {"handler": name, "result": jsonable_encoder(whole)}
            keep = getattr(method, _MARK).keep
            stored = {key: arguments[key] for key in arguments if keep is None or key in keep}
            entry = make_entry(id_, self.version, [jsonable_encoder(stored)], [answer])
            await store_or_refuse(self.log, entry, id_)
        self.metrics.count_predictions({name: 1})
        return result


def _endpoint(
    service: str, name: str, method: Callable[..., Any], recorder: _Recorder
) -> Callable[..., Any]:
    """What FastAPI calls: with the request, and the query's parameters or one JSON object.

    The object's fields are the method's arguments, checked strictly and none unknown.
    """
    hints, query = get_type_hints(method, include_extras=True), getattr(method, _MARK).verb == "GET"
    parameters = [
        parameter.replace(annotation=hints.get(parameter.name, parameter.empty))
        for parameter in inspect.signature(method).parameters.values()
    ]
    for parameter in parameters:
        if parameter.annotation is parameter.empty or parameter.kind != _PLAIN:
            got = "no type" if parameter.kind == _PLAIN else parameter.kind.description
            where = f"{service}.{name}, argument {parameter.name!r}"
            remedy = "Give each argument its name and type."
            raise ParameterError(where, got, "an annotation, such as income: float", remedy)
    fields: dict[str, Any] = {
        each.name: (each.annotation, ... if each.default is each.empty else each.default)
        for each in parameters
    }
    if not query:
        config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
        body = create_model(f"{service}_{name}", __config__=config, **fields)
        parameters = [inspect.Parameter("body", _PLAIN, annotation=body)]

    async def endpoint(http_request: Request, **sent: Any) -> Any:
        arguments = sent if query else {field: getattr(sent["body"], field) for field in fields}
        return await recorder.call(name, method, arguments, http_request.state.request_id)

    request = inspect.Parameter("http_request", _PLAIN, annotation=Request)
    endpoint.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # FastAPI reads it
        [request, *parameters], return_annotation=hints.get("return", inspect.Signature.empty)
    )
    endpoint.__doc__ = inspect.getdoc(method)
    return endpoint


async def _send_file(file: Path, _: Request) -> Response:
    return FileResponse(file)


async def _send_docs(name: str, _: Request) -> Response:
    return HTMLResponse(render("serving/templates/docs.html", case={"title": name}))


def _raise_problems(api: FastAPI) -> ASGIApp:
    """FastAPI's routes without its own handling of errors, which is the middleware's."""
    routes = AsyncExitStackMiddleware(api.router)

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = api
        try:
            await routes(scope, receive, send)
        except RequestValidationError as error:
            faults = [
                {"field": ".".join(map(str, fault["loc"][1:])), "detail": fault["msg"]}
                for fault in error.errors()
            ]
            detail = f"{faults[0]['field'] or 'body'}: {faults[0]['detail']}"
            raise ProblemError(422, detail, field=faults[0]["field"], faults=faults) from error

    return call
