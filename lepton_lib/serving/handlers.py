"""A service written as a class, for those who come from Lepton's Photon: handlers are methods, their types the checks.

``class Risk(Service): def init(self): ...; @handler def predict(self, income: float) -> float:
...``, then ``Risk().launch(port=8080)``. The description in /openapi.json comes from the
annotations, so that any client that reads one can call the handlers by name. A thin layer over
FastAPI; knows nothing of cases or models.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar, get_type_hints, overload

from fastapi import FastAPI
from pydantic import ConfigDict, create_model

from lepton_lib.errors import ParameterError
from lepton_lib.serving.protocol import TimedProtocol
from lepton_lib.serving.server import is_loopback, listen

Method = TypeVar("Method", bound=Callable[..., Any])
_MARK = "_lepton_handler"


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
    """A service whose handlers are its methods. Subclass it, mark methods with `handler`, and `launch` it."""

    def init(self) -> None:
        """What is done once before the first request, such as reading a model. Nothing by default."""

    def app(self) -> FastAPI:
        """The service as an ASGI application; `init` runs when it starts.

        Raises:
            ParameterError: It has no handlers, or one takes an argument without a type.
        """

        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            self.init()
            yield

        name = type(self).__name__
        made = FastAPI(
            title=name,
            summary=inspect.getdoc(self),
            lifespan=lifespan,
            docs_url=None,
            redoc_url=None,
        )
        found = inspect.getmembers(
            self, lambda member: inspect.ismethod(member) and hasattr(member, _MARK)
        )
        if not found:
            raise ParameterError(
                f"service {name}", "no handlers", "at least one", "Mark a method with @handler."
            )
        for label, method in found:
            path, verb = getattr(method, _MARK)
            made.add_api_route(
                path,
                _endpoint(name, label, method) if verb == "POST" else method,
                methods=[verb],
                operation_id=label,
                summary=(inspect.getdoc(method) or label).splitlines()[0],
            )

        @made.get("/healthz", include_in_schema=False)
        async def healthz() -> dict[str, str]:
            return {"status": "ok"}

        return made

    def launch(self, port: int = 8080, host: str = "127.0.0.1") -> None:
        """Serve until interrupted.

        Args:
            port: The port; 0 takes a free one, which the log names.
            host: An address of this machine that only it can reach: a class like this one asks
                nobody for a key.

        Raises:
            ParameterError: Others could reach the address.
            RunError: The address can't be bound.
        """
        import uvicorn

        if not is_loopback(host):
            raise ParameterError(
                "host",
                host,
                "127.0.0.1, ::1 or localhost",
                "Put it behind a proxy that asks for keys, or use `lepton serve`, which does.",
            )
        listener = listen(host, port)
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        logging.getLogger("lepton.serving").info(
            "%s listens on port %d", type(self).__name__, listener.getsockname()[1]
        )
        config = uvicorn.Config(self.app(), http=TimedProtocol, log_config=None, access_log=False)
        uvicorn.Server(config).run(sockets=[listener])


def _endpoint(service: str, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one body, whose fields are the method's arguments, checked strictly and none unknown."""
    hints = get_type_hints(method)
    fields: dict[str, Any] = {}
    for label, parameter in inspect.signature(method).parameters.items():
        if label not in hints or parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            raise ParameterError(
                f"{service}.{name}, argument {label!r}",
                "no type" if label not in hints else f"{parameter.kind.description}",
                "an annotation, such as income: float",
                "Give each argument its name and type.",
            )
        fields[label] = (
            hints[label],
            ... if parameter.default is parameter.empty else parameter.default,
        )
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    body: Any = create_model(f"{service}_{name}", __config__=config, **fields)

    def endpoint(given: Any) -> Any:
        return method(**{label: getattr(given, label) for label in fields})

    endpoint.__annotations__ = {"given": body} | (
        {"return": hints["return"]} if "return" in hints else {}
    )
    endpoint.__doc__ = inspect.getdoc(method)
    return endpoint
