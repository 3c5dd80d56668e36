"""The desk: the `lepton` command. Prints, parses, and leaves the work to the floors below."""

from __future__ import annotations

import signal
import sys

import typer

from lepton_lib.cli import classroom, running, service, watching
from lepton_lib.cli.common import FAILED, USAGE
from lepton_lib.errors import LeptonError, NotebookError

app = typer.Typer(
    help="Machine learning from research to application: run the course's notebooks, serve what they leave.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for part in (running, service, watching, classroom):
    app.add_typer(part.app)


def main() -> None:
    """The entry point: a mistake that the reader can mend is one message on stderr, never a traceback."""
    # nbformat's jsonschema takes a second to get ready for a format that no notebook has, unless
    # this can't be found.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None is what the import system asks for
    # so that kernels are ended
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except NotebookError as error:
        sys.exit(_told(error, FAILED))
    except LeptonError as error:
        sys.exit(_told(error, USAGE))
    except (
        OSError,
        UnicodeError,
        OverflowError,
    ) as error:  # a path, a text or a number that the machine refuses
        told = LeptonError(
            str(getattr(error, "filename", None) or "the command"),
            str(getattr(error, "strerror", None) or error),
            "a path or a value that this machine takes",
            "Check the command's words, and that the files are yours.",
        )
        sys.exit(_told(told, FAILED))


def _told(error: LeptonError, code: int) -> int:
    typer.echo(f"lepton: {error}", err=True)
    return code
