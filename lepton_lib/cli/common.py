"""What the commands share: exit codes, common arguments, and progress on stderr."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_lib.artefacts import Run
from lepton_lib.errors import RunError
from lepton_lib.utils import CASE_VARIABLE

if TYPE_CHECKING:
    from lepton_lib.runs import ProgressEvent

FAILED, USAGE, INTERRUPTED = 1, 2, 130  # exit codes


def _use_case_of(run_dir: Path) -> Path:
    """Find the run's case where its manifest says that it lies, in all processes started here."""
    with contextlib.suppress(RunError):
        if folder := Run(run_dir).manifest.get("case_folder"):
            os.environ[CASE_VARIABLE] = folder
    return run_dir


def use_case(case: str | None) -> None:
    """Find the case of ``--case`` by its name, in all processes started here."""
    from lepton_lib.cases import load_case

    if case is not None:
        os.environ[CASE_VARIABLE] = str(load_case(case, verify=False).folder.resolve())


RunFolder = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A run folder in which 04_deployment has run.",
        callback=_use_case_of,
    ),
]
CaseOption = Annotated[
    str | None, typer.Option("--case", help="The case's folder; default: where it lay in the run.")
]
Trust = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY", help="Trust releases signed with this public key; default: yours."),
]
_BAR = "{desc:<16} {bar:24} {n_fmt:>3}/{total_fmt} cells {elapsed}"


class Progress:
    """A line per notebook on stderr: a bar over its cells in a terminal, else one when it ends."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __call__(self, event: ProgressEvent) -> None:
        """Show the progress of a notebook."""
        if event.state != "running":
            shown_by_bar = self.bar is not None and event.state != "failed"
            self.close()
            if not shown_by_bar:
                cells = f"{event.done:3}/{event.total} cells {event.seconds:6.1f} s"
                line = f"{event.notebook:<16} {event.state:<12} {cells if event.total else ''}"
                typer.echo(line.rstrip(), err=True)
        elif sys.stderr.isatty():
            if self.bar is None:
                self.bar = _bar(event)
            self.bar.update(event.done - self.bar.n)

    def close(self) -> None:
        """End the bar's line."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _bar(event: ProgressEvent) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=event.total,
        desc=event.notebook,
        bar_format=_BAR,
        ncols=min(80, shutil.get_terminal_size().columns),
        nrows=24,  # some terminals report none
        disable=False,
    )
