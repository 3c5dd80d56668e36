"""The `lepton` command. Parses arguments and prints results; the other packages do the work."""

from __future__ import annotations

import os
import signal
import sys

import typer

from lepton_lib.cli import classroom, running, service, sweeping, watching
from lepton_lib.cli.common import FAILED, USAGE, Command
from lepton_lib.errors import LeptonError, NotebookError
from lepton_lib.utils import NO_TELEMETRY

app = typer.Typer(
    help="Run the course's notebooks, deploy and serve their models, monitor them, teach a class.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for part in (running, sweeping, service, watching, classroom):
    app.add_typer(part.app)
for group in (running.app, sweeping.app, service.app, service.keys, watching.app, classroom.app):
    for command in group.registered_commands:
        command.cls = Command


def main() -> None:
    """Entry point: a user's mistake is one message on stderr, never a traceback."""
    os.environ.update(NO_TELEMETRY)
    for name in ("stdin", "stdout", "stderr"):  # closed ones: the next file would get their number
        if getattr(sys, name) is None:
            stream = open(os.devnull, "r" if name == "stdin" else "w")  # noqa: SIM115
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
    # Without this module nbformat's jsonschema doesn't spend a second on a format that no notebook
    # has.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # the import system's way to say "missing"
    # as an exception, so that kernels are ended
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except NotebookError as error:
        sys.exit(_print_error(error, FAILED))
    except LeptonError as error:
        sys.exit(_print_error(error, USAGE))
    except (OSError, UnicodeError, OverflowError) as error:  # a path, text or number
        where = str(getattr(error, "filename", None) or "the command")
        got = str(getattr(error, "strerror", None) or error)
        remedy = "Check the arguments, and that the files are yours."
        expected = "a path or a value that this machine takes"
        sys.exit(_print_error(LeptonError(where, got, expected, remedy), FAILED))


def _print_error(error: LeptonError, code: int) -> int:
    typer.echo(f"lepton: {error}", err=True)
    return code
