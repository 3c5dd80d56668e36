"""A service written as a class, as with Lepton's Photon: handlers are methods, their types checks.

``class Risk(Service): def init(self): ...; @handler def predict(self, income: float) -> float:
...``, then ``Risk().launch(port=8080)``. The description in /openapi.json comes from the
annotations, so that any client that reads one can call the handlers by name. FastAPI under the
middleware that guards every service; knows nothing of cases or models.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar, get_type_hints, overload

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from pydantic import ConfigDict, create_model
from starlette.types import ASGIApp, Receive, Scope, Send

from lepton_lib.errors import ParameterError
from lepton_lib.serving.api_keys import Keys, keys_file
from lepton_lib.serving.log import PredictionLog, entry
from lepton_lib.serving.middleware import ServiceMiddleware, store
from lepton_lib.serving.problems import ProblemError
from lepton_lib.serving.routes import health_endpoints, metrics_endpoint
from lepton_lib.serving.server import listen, require_keys, run
from lepton_lib.serving.telemetry import Metrics

Method = TypeVar("Method", bound=Callable[..., Any])
_MARK = "_lepton_handler"
OPEN = {"/healthz", "/readyz", "/openapi.json"}  # where no key is demanded


@overload
def handler(path: Method) -> Method: ...
@overload
def handler(path: str | None = None, *, method: str = "POST") -> Callable[[Method], Method]: ...
def handler(path: Any = None, *, method: str = "POST") -> Any:
    """Mark a method as a handler: ``@handler``, or ``@handler("/other", method="GET")``.

    Args:
        path: Where it answers; the method's name by default.
        method: ``POST``, whose arguments come as a JSON object, or ``GET``, whose arguments come in
            the query.
    """
    if callable(path):
        return handler()(path)
    if method not in ("POST", "GET"):
        raise ParameterError("handler's method", repr(method), "POST or GET", "Use one of them.")

    def mark(function: Method) -> Method:
        setattr(function, _MARK, (path or f"/{function.__name__}", method))
        return function

    return mark


class Service:
    """A service whose handlers are its methods: mark them with `handler`, and `launch` it.

    Attributes:
        version: What the prediction log says answered; the class's name unless a subclass sets it.
    """

    version: str = ""

    def init(self) -> None:
        """Run once before the first request, to read a model for example. Nothing by default."""

    def app(
        self, folder: str | Path | None = None, *, require_key: bool = False
    ) -> ServiceMiddleware:
        """The service as an ASGI application; `init` runs when it starts.

        Args:
            folder: Where API keys are looked for and each call's arguments and result are stored:
                in ``folder/service/``, as in a run folder, so that ``lepton keys`` and ``lepton
                log`` work on it. Without it nothing is stored and no key is demanded.
            require_key: Demand an API key, also where there is none yet.

        Raises:
            ParameterError: It has no handlers, or one takes an argument without a type.
            RunError: The folder can't be written to.
        """
        name, keys, log = type(self).__name__, None, None
        if folder is not None:
            place = Path(folder) / "service"
            place.mkdir(parents=True, exist_ok=True)
            keys = Keys(keys_file(folder), required=require_key)
            log = PredictionLog(place / "predictions.sqlite")
        metrics, calls = Metrics(), []
        members = inspect.getmembers(self, lambda member: hasattr(member, _MARK))
        for label, method in members:
            calls.append(_Handler(label, method, self.version or name, metrics, log))
        if not calls:
            remedy = "Mark a method with @handler."
            raise ParameterError(f"service {name}", "no handlers", "at least one", remedy)
        metrics.set_model(name, self.version or name, answers=True)

        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            self.init()
            async with guarded.watching():
                yield

        api = FastAPI(
            title=name,
            summary=inspect.getdoc(self),
            lifespan=lifespan,
            docs_url=None,
            redoc_url=None,
        )
        for call in calls:
            call.add_to(api, name)
        others = health_endpoints(log) | {"/metrics": metrics_endpoint(metrics)}
        for path, endpoint in others.items():
            api.add_route(path, endpoint, include_in_schema=False)
        guarded = ServiceMiddleware(
            _raise_problems(api),
            metrics=metrics,
            routes={*OPEN, "/metrics", *(call.path for call in calls)},
            guarded=lambda path: path not in OPEN,
            keys=keys,
            log=log,
        )
        return guarded

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
            folder: Where keys lie and calls are stored, see `app`.
            no_keys: Answer without a key, also on an address that others can reach.

        Raises:
            ParameterError: As for `app`.
            RunError: The address can't be bound, or others can reach it and there are no keys.
        """
        require_keys(host, folder, no_keys=no_keys)
        run(functools.partial(self.app, folder), listen(host, port))


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


class _Handler:
    """A method as a route: its arguments checked, its calls counted and stored."""

    def __init__(
        self,
        name: str,
        method: Callable[..., Any],
        version: str,
        metrics: Metrics,
        log: PredictionLog | None,
    ) -> None:
        self.path, self._verb = getattr(method, _MARK)
        self._name = name
        self._method = method
        self._version = version
        self._metrics = metrics
        self._log = log

    def add_to(self, api: FastAPI, service: str) -> None:
        """Make the route.

        Raises:
            ParameterError: An argument has no type.
        """
        endpoint = self._endpoint(service)
        summary = (inspect.getdoc(self._method) or self._name).splitlines()[0]
        options: dict[str, Any] = {"operation_id": self._name, "summary": summary}
        api.add_api_route(self.path, endpoint, methods=[self._verb], **options)

    def _endpoint(self, service: str) -> Callable[..., Any]:
        """A function of the request and of one body for POST, of the query's parameters for GET.

        The body's fields are the method's arguments, checked strictly and none unknown.
        """
        hints = get_type_hints(self._method)
        parameters = [
            parameter.replace(annotation=hints.get(parameter.name, parameter.empty))
            for parameter in inspect.signature(self._method).parameters.values()
        ]
        for parameter in parameters:
            if parameter.annotation is parameter.empty or parameter.kind != _PLAIN:
                where = f"{service}.{self._name}, argument {parameter.name!r}"
                got = "no type" if parameter.kind == _PLAIN else parameter.kind.description
                remedy = "Give each argument its name and type."
                raise ParameterError(where, got, "an annotation, such as income: float", remedy)
        request = inspect.Parameter("http_request", _PLAIN, annotation=Request)
        if self._verb == "POST":
            fields: dict[str, Any] = {
                each.name: (each.annotation, ... if each.default is each.empty else each.default)
                for each in parameters
            }
            config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
            body = create_model(f"{service}_{self._name}", __config__=config, **fields)
            parameters = [inspect.Parameter("body", _PLAIN, annotation=body)]

        async def endpoint(http_request: Request, **sent: Any) -> Any:
            if self._verb == "POST":
                sent = {name: getattr(sent["body"], name) for name in fields}
            return await self._call(sent, http_request.state.request_id)

        returns = hints.get("return", inspect.Signature.empty)
        signature = inspect.Signature([request, *parameters], return_annotation=returns)
        endpoint.__signature__ = signature  # type: ignore[attr-defined]  # FastAPI reads it
        endpoint.__doc__ = inspect.getdoc(self._method)
        return endpoint

    async def _call(self, arguments: dict[str, Any], request_id: str) -> Any:
        if inspect.iscoroutinefunction(self._method):
            result = await self._method(**arguments)
        else:
            result = await run_in_threadpool(self._method, **arguments)
        if self._log is not None:
            whole = f"{result.media_type} response" if isinstance(result, Response) else result
            answer = {"handler": self._name, "result": jsonable_encoder(whole)}
            made = entry(request_id, self._version, [jsonable_encoder(arguments)], [answer])
            await store(self._log, made, request_id)
        self._metrics.count_predictions({self._name: 1})
        return result


_PLAIN = inspect.Parameter.POSITIONAL_OR_KEYWORD
