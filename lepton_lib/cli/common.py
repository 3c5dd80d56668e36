"""What the commands share: exit codes, common arguments, and progress on stderr."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lepton_lib.runs import ProgressEvent

FAILED, USAGE, INTERRUPTED = 1, 2, 130  # exit codes
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder in which 04_deployment has run.")
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
